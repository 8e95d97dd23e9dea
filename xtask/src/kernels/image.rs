//! What a virtual machine boots with: an initramfs of busybox, the programs under test, and the tools and modules that
//! they need.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::Kernel;
use crate::{command, libraries, workspace};

/// The first process; runs what [`Image::add_suite`] was given.
const INIT: &str = include_str!("init.sh");

/// Programs that suites start.
const TOOLS: [&str; 12] = [
    "bpftool",
    "bridge",
    "ethtool",
    "ip",
    "ip6tables-legacy",
    "ip6tables-nft",
    "iptables-legacy",
    "iptables-nft",
    "nft",
    "nsenter",
    "nstat",
    "tc",
];

/// What clusters of namespaces, and programs on their devices, are made of, and the firewalls that people put there.
/// Kernels that have one built in are fine.
const MODULES: [&str; 28] = [
    "veth",
    "bridge",
    "br_netfilter",
    "vxlan",
    "8021q",
    "tun",
    "sch_ingress",
    "udp_diag",
    "cls_bpf",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_ct",
    "nft_masq",
    "nft_synproxy",
    "iptable_filter",
    "iptable_mangle",
    "iptable_nat",
    "iptable_raw",
    "ip6table_filter",
    "ip6table_mangle",
    "ip6table_nat",
    "ip6table_raw",
    "xt_CT",
    "xt_MASQUERADE",
    "xt_nat",
    "xt_comment",
    "xfrm_user",
];

/// What only some kernels have, and suites look for.
const OPTIONAL: [&str; 1] = ["nfnetlink_hook"];

/// Where Debian's iptables finds its matches and targets.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// A folder that becomes the initramfs.
pub struct Image {
    root: PathBuf,
    modules: Vec<String>,
    suites: String,
    environment: String,
}

impl Image {
    /// With the tools and the modules of `kernel`; `root` is made anew.
    pub fn new(root: &Path, kernel: &Kernel) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        for folder in ["bin", "dev", "modules", "proc", "root", "run", "sys", "tmp"] {
            fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot make {}", root.display()))?;
        }
        let mut image =
            Self { root: root.to_owned(), modules: Vec::new(), suites: String::new(), environment: String::new() };
        for tool in ["busybox"].iter().chain(&TOOLS) {
            let file = workspace::find_program(tool).with_context(|| format!("{tool} is missing"))?;
            image.add_program(&file, &format!("bin/{tool}"))?;
        }
        image.add_extensions()?;
        command::run(Command::new("depmod").arg("--basedir").arg(&kernel.root).arg(&kernel.release))?;
        MODULES.iter().try_for_each(|module| image.add_module(kernel, module))?;
        for module in OPTIONAL {
            if let Err(error) = image.add_module(kernel, module) {
                eprintln!("xtask: {error}");
            }
        }
        Ok(image)
    }

    /// A program and the shared libraries that it is linked with.
    pub fn add_program(&mut self, file: &Path, to: &str) -> Result<()> {
        let copy = |from: &Path, to: &str| -> Result<()> {
            let to = self.root.join(to.trim_start_matches('/'));
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            fs::copy(from, &to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
        };
        copy(file, to)?;
        libraries::of(Path::new("/"), file).iter().try_for_each(|library| copy(library, &library.to_string_lossy()))
    }

    /// What the iptables load while they run.
    fn add_extensions(&mut self) -> Result<()> {
        for entry in fs::read_dir(XTABLES).with_context(|| format!("cannot list {XTABLES}"))? {
            let file = entry?.path();
            self.add_program(&file, &file.to_string_lossy())?;
        }
        Ok(())
    }

    /// A program with the debug information that its build has left in it: memory of the machine holds all of this.
    pub fn add_stripped(&mut self, file: &Path, to: &str) -> Result<()> {
        self.add_program(file, to)?;
        command::run(Command::new("strip").arg("--strip-debug").arg(self.root.join(to)))
    }

    /// A module behind those that it needs.
    fn add_module(&mut self, kernel: &Kernel, name: &str) -> Result<()> {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("--dirname").arg(&kernel.root).args(["--set-version", &kernel.release, "--show-depends", name]);
        let found = command::output(&mut modprobe)
            .with_context(|| format!("the kernel {} has no module {name}", kernel.release))?;
        for file in found.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = Path::new(file.trim());
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let plain = name.trim_end_matches(".xz").to_owned();
            if self.modules.contains(&plain) {
                continue;
            }
            let to = self.root.join("modules").join(&name);
            fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
            if plain != name {
                command::run(Command::new("xz").args(["--decompress", "--quiet"]).arg(&to))?;
            }
            self.modules.push(plain);
        }
        Ok(())
    }

    /// A variable that all suites see.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment += &format!("export {name}={value}\n");
    }

    /// A command without quotes, run after those before it.
    pub fn add_suite(&mut self, name: &str, command: &str) {
        self.suites += &format!("{name}\t{command}\n");
    }

    /// Writes the initramfs beside the folder, and returns where it is.
    pub fn pack(&self) -> Result<PathBuf> {
        let modules: String = self.modules.iter().map(|module| format!("{module}\n")).collect();
        let files = [
            ("init", INIT),
            ("environment", self.environment.as_str()),
            ("suites", self.suites.as_str()),
            ("modules/order", modules.as_str()),
        ];
        for (name, content) in files {
            let path = self.root.join(name);
            let mut file = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            file.write_all(content.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
            file.set_permissions(Permissions::from_mode(0o755))?;
        }
        let archive = self.root.with_extension("cpio");
        let mut shell = Command::new("sh");
        shell.current_dir(&self.root).env("ARCHIVE", &archive);
        // The form that the kernel reads (Documentation/driver-api/early-userspace/buffer-format.rst).
        command::run(shell.args(["-c", "find . | busybox cpio -o -H newc > \"$ARCHIVE\" 2> /dev/null"]))?;
        Ok(archive)
    }
}
