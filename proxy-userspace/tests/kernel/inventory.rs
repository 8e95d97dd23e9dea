//! The inventory of devices follows what the kernel tells about them.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use proxy_userspace::kernel::{AttachMode, LinkOptions, Links, Runtime};

use crate::ours;
use crate::sandbox::{FarNamespace, Sandbox, batch, eventually, has_tcx, ip, modes, pod_link, run, sandbox};

/// Waits until an inventory that has followed knows the same as one that lists everything now, in a pin directory of
/// its own.
async fn agrees(sandbox: &Sandbox, links: &Links) {
    let mut options = sandbox.options();
    options.pin_dir = sandbox.bpffs().join("anew");
    let mut runtime = None;
    eventually("the last one has let go of its pin directory", || {
        runtime = Runtime::open(&options).ok();
        runtime.is_some()
    })
    .await;
    let anew = Links::start(runtime.unwrap().programs, tcx()).await.unwrap();
    anew.attach().await.unwrap();
    let (interfaces, attachments) = (links.interfaces(), links.attachments());
    eventually("the same devices and addresses", || *interfaces.borrow() == *anew.interfaces().borrow()).await;
    eventually("the same roles", || *attachments.borrow() == *anew.attachments().borrow()).await;
}

/// Only links of TCX let two agents share the devices.
fn tcx() -> LinkOptions {
    LinkOptions { mode: AttachMode::Tcx, ..LinkOptions::default() }
}

/// Dice whose falls are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Something that people, CNIs and kernels do to devices. What is not possible just then is refused, which does no harm.
fn mischief(dice: &mut Dice, far: &FarNamespace) -> String {
    let (a, b) = (dice.roll(6), dice.roll(6));
    let far = far.thread;
    match dice.roll(20) {
        0 => format!("link add d{a} type veth peer name eth{a} netns {far}"),
        1 => format!("link add d{a} type veth peer name d{b}"),
        2 => format!("link add d{a} type bridge"),
        3 => format!("link add d{a} link d{b} type vlan id 7"),
        4 => format!("link add d{a} type dummy"),
        5 | 6 => format!("link del d{a}"),
        7 => format!("link set d{a} netns {far}"),
        8 | 9 => format!("link set d{a} master d{b}"),
        10 => format!("link set d{a} nomaster"),
        11 | 12 => format!("link set d{a} up"),
        13 => format!("link set d{a} down"),
        14 => format!("addr add 10.{b}.0.1/24 dev d{a}"),
        15 => format!("addr add 10.{b}.0.2/24 dev d{a}"),
        16 => format!("addr del 10.{b}.0.1/24 dev d{a}"),
        17 => format!("addr add fd00:{b}::1/64 dev d{a}"),
        18 => format!("addr flush dev d{a}"),
        _ => format!("route replace default via 10.{b}.0.9"),
    }
}

#[test]
fn it_follows_whatever_is_done_to_devices() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let far = FarNamespace::new();
        let (_tables, links) = sandbox.start(tcx()).await;
        for seed in 1..=5 {
            let mut dice = Dice(seed);
            let steps: Vec<String> = (0..80).map(|_| mischief(&mut dice, &far)).collect();
            println!("seed {seed}: {}", steps.join("; "));
            // In the background, so that messages are taken one by one and not only when all is over.
            tokio::task::spawn_blocking(move || batch(&steps)).await.unwrap();
            agrees(&sandbox, &links).await;
        }
    });
}

/// More messages than the kernel keeps: it drops some, and says so.
#[test]
fn lost_messages_are_made_up_for() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let far = FarNamespace::new();
        let (_tables, links) = sandbox.start(tcx()).await;
        // This thread reads the messages, and is busy with making them.
        let far = far.thread;
        let make = |number| {
            [format!("link add d{number} type veth peer name e{number} netns {far}"), format!("link set d{number} up")]
        };
        batch(&(0..300).flat_map(make).collect::<Vec<_>>());
        batch(&(0..150).map(|number| format!("link del d{number}")).collect::<Vec<_>>());
        assert!(lost_messages() > 0, "not enough to lose any");
        agrees(&sandbox, &links).await;
        assert_eq!(links.attachments().borrow().attached.len(), 150);
    });
}

/// Of the sockets in this network namespace, as the kernel has counted them.
fn lost_messages() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
}

/// The device that gets the index of one that is gone gets programs of its own.
#[test]
fn an_index_may_pass_to_another_device() {
    sandbox(async |sandbox| {
        for &mode in modes() {
            let pod = FarNamespace::new();
            ip(&format!("link add old index 77 type veth peer name eth0 netns {}", pod.thread));
            let (tables, links) = sandbox.start(LinkOptions { mode, ..LinkOptions::default() }).await;
            // Both are told at once.
            batch(&[
                "link del old".into(),
                format!("link add new index 77 type veth peer name eth0 netns {}", pod.thread),
            ]);
            let attachments = links.attachments();
            eventually("the new one is attached", || {
                attachments.borrow().attached.iter().any(|device| device.name == "new" && device.index == 77)
            })
            .await;
            match mode {
                AttachMode::Clsact => assert!(ours::filters("new")[0].contains("sheave/pod_in")),
                _ => assert_eq!(ours::tcx_names("new"), [["pod_in"], ["pod_out"]]),
            }
            drop((tables, links));
            ip("link del new");
            sandbox.free().await;
        }
    });
}

/// Processor time that this thread, which follows devices, takes for one flap of a link among `links`.
async fn flap(sandbox: &Sandbox, links: u32) -> Duration {
    const FLAPS: u32 = 100;
    let far = FarNamespace::new();
    for number in 0..links {
        pod_link(&format!("d{number}"), &far);
        run("nsenter", &format!("--net=/proc/{}/ns/net ip link set eth0 name e{number} up", far.thread));
    }
    let (tables, watched) = sandbox.start(LinkOptions::default()).await;
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let before = used();
    tokio::task::spawn_blocking(|| {
        for _ in 0..FLAPS {
            batch(&["link set d0 down".into(), "link set d0 up".into()]);
        }
    })
    .await
    .unwrap();
    let cost = (used() - before) / FLAPS;
    println!("{links} links: {cost:?} for a flap of one");
    drop((tables, watched));
    sandbox.free().await;
    cost
}

#[test]
fn the_work_of_a_change_does_not_grow_with_the_number_of_devices() {
    sandbox(async |sandbox| {
        let (few, many) = (flap(&sandbox, 5).await, flap(&sandbox, 200).await);
        assert!(many < few * 4, "{few:?} among 5 links, {many:?} among 200");
    });
}
