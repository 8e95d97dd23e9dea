//! Who is found to look at forwarded packets, with the programs that people use.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use proxy_userspace::kernel::netfilter::{Inquiry, follow};
use proxy_userspace::kernel::{FastPath, FastPathMode};
use proxy_userspace::model::Family;
use tokio::sync::watch;

use crate::sandbox::{ip, run, sandbox};

/// Lines of nft or of one of the iptables, one after another.
fn apply(commands: &[&str]) {
    for command in commands {
        let (program, arguments) = command.split_once(' ').unwrap();
        run(program, arguments);
    }
}

/// Who keeps IPv4 and IPv6 from the fast path; empty: nobody.
fn onlookers(path: &FastPath) -> [String; 2] {
    Family::ALL.map(|family| path.onlooker(family).map(ToString::to_string).unwrap_or_default())
}

fn look() -> [String; 2] {
    onlookers(&Inquiry::new().look())
}

/// Each case: what is done, and who looks then at IPv4 and at IPv6. Afterwards all of it is undone.
fn cases(undo: &[&'static str], cases: &[(&'static [&'static str], [&'static str; 2])]) {
    let (undo, cases) = (undo.to_vec(), cases.to_vec());
    sandbox(async move |_| {
        assert_eq!(look(), ["", ""], "an empty namespace");
        for (commands, expected) in cases {
            apply(commands);
            assert_eq!(look(), expected, "{commands:?}");
            apply(&undo);
            assert_eq!(look(), ["", ""], "{commands:?} undone");
        }
    });
}

#[test]
fn chains_of_nftables_look_if_they_have_rules_or_do_not_accept() {
    const RULES: &str = "nftables chain inet t c has rules";
    const POLICY: &str = "nftables chain inet t c does not accept by policy";
    cases(
        &["nft flush ruleset"],
        &[
            (&["nft add table inet t"], ["", ""]),
            (&["nft add table inet t { chain c { type filter hook forward priority 0; }; }"], ["", ""]),
            (&["nft add table inet t { chain c { type filter hook forward priority 0; counter; }; }"], [RULES, RULES]),
            (
                &["nft add table inet t { chain c { type filter hook forward priority 0; policy drop; }; }"],
                [POLICY, POLICY],
            ),
            (
                &["nft add table inet t { chain c { type filter hook prerouting priority -300; counter; }; }"],
                [RULES, RULES],
            ),
            (
                &["nft add table inet t { chain c { type filter hook postrouting priority 0; counter; }; }"],
                [RULES, RULES],
            ),
            (
                &["nft add table inet t { chain c { type nat hook prerouting priority -100; counter; }; }"],
                [RULES, RULES],
            ),
            // Rules that a forwarded packet does not meet, or that masquerade.
            (&["nft add table inet t { chain c { type filter hook input priority 0; counter; }; }"], ["", ""]),
            (&["nft add table inet t { chain c { type filter hook output priority 0; policy drop; }; }"], ["", ""]),
            (&["nft add table inet t { chain c { counter; }; }"], ["", ""]),
            (&["nft add table inet t { chain c { type nat hook postrouting priority 100; masquerade; }; }"], ["", ""]),
            // A chain that another one jumps to.
            (
                &[
                    "nft add table inet t { chain d { counter; }; chain c { type filter hook forward priority 0; jump d; }; }",
                ],
                [RULES, RULES],
            ),
            (
                &["nft add table inet t { flags dormant; chain c { type filter hook forward priority 0; drop; }; }"],
                ["", ""],
            ),
        ],
    );
}

#[test]
fn chains_look_at_their_family() {
    cases(
        &["nft flush ruleset"],
        &[
            (
                &["nft add table ip t { chain c { type filter hook forward priority 0; counter; }; }"],
                ["nftables chain ip t c has rules", ""],
            ),
            (
                &["nft add table ip6 t { chain c { type filter hook forward priority 0; counter; }; }"],
                ["", "nftables chain ip6 t c has rules"],
            ),
            (&["nft add table arp t { chain c { type filter hook input priority 0; counter; }; }"], ["", ""]),
            (
                &["nft add table bridge t { chain c { type filter hook forward priority 0; counter; }; }"],
                ["nftables chain bridge t c has rules"; 2],
            ),
        ],
    );
}

#[test]
fn chains_of_devices_look_at_everything() {
    sandbox(async |_| {
        ip("link add d0 type veth peer name d1");
        for (family, hook) in [("netdev", "ingress"), ("netdev", "egress"), ("inet", "ingress")] {
            let chain = |rule: &str| {
                format!(
                    "add table {family} t {{ chain c {{ type filter hook {hook} device d0 priority 0; {rule} }}; }}"
                )
            };
            run("nft", &chain(""));
            assert_eq!(look(), ["", ""], "{family} {hook}");
            run("nft", &chain("counter;"));
            let expected = format!("nftables chain {family} t c has rules");
            assert_eq!(look(), [expected.clone(), expected], "{family} {hook}");
            run("nft", "flush ruleset");
        }
    });
}

/// Both of the programs that Debian calls iptables, and what kubelet, container engines and network plugins do.
#[test]
fn chains_of_iptables_look_if_they_have_rules_or_do_not_accept() {
    sandbox(async |_| {
        for (suffix, word) in [("nft", "nftables chain ip"), ("legacy", "iptables-legacy chain")] {
            let iptables = |arguments: &str| run(&format!("iptables-{suffix}"), arguments);
            assert_eq!(look(), ["", ""]);
            // The canaries of kubelet: chains that nothing jumps to, in tables that are there now.
            for table in ["mangle", "nat", "filter"] {
                iptables(&format!("-t {table} -N KUBE-KUBELET-CANARY"));
            }
            iptables("-A INPUT -s 192.0.2.1 -j DROP");
            iptables("-P OUTPUT DROP");
            iptables("-t nat -A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE");
            assert_eq!(look(), ["", ""], "{suffix}");

            for (change, undo, table, chain, cause) in [
                ("-P FORWARD DROP", "-P FORWARD ACCEPT", "filter", "FORWARD", "does not accept by policy"),
                ("-A FORWARD -s 192.0.2.1 -j DROP", "-F FORWARD", "filter", "FORWARD", "has rules"),
                (
                    "-t raw -A PREROUTING -d 192.0.2.1 -j NOTRACK",
                    "-t raw -F PREROUTING",
                    "raw",
                    "PREROUTING",
                    "has rules",
                ),
                (
                    "-t mangle -P POSTROUTING DROP",
                    "-t mangle -P POSTROUTING ACCEPT",
                    "mangle",
                    "POSTROUTING",
                    "does not accept by policy",
                ),
                ("-t mangle -A POSTROUTING", "-t mangle -F POSTROUTING", "mangle", "POSTROUTING", "has rules"),
                ("-t nat -A PREROUTING -j ACCEPT", "-t nat -F PREROUTING", "nat", "PREROUTING", "has rules"),
            ] {
                iptables(change);
                assert_eq!(look(), [format!("{word} {table} {chain} {cause}"), String::new()], "{suffix} {change}");
                iptables(undo);
                assert_eq!(look(), ["", ""], "{suffix} {undo}");
            }
            run(&format!("ip6tables-{suffix}"), "-A FORWARD -j ACCEPT");
            let word = if suffix == "nft" { "nftables chain ip6" } else { "ip6tables-legacy chain" };
            assert_eq!(look(), [String::new(), format!("{word} filter FORWARD has rules")], "{suffix}");
            run(&format!("ip6tables-{suffix}"), "-F FORWARD");
        }
    });
}

/// Nothing is made by being asked for.
#[test]
fn asking_makes_no_tables() {
    sandbox(async |_| {
        let names = || {
            ["ip_tables_names", "ip6_tables_names"]
                .map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default())
        };
        look();
        assert_eq!(names(), ["", ""]);
        run("iptables-legacy", "-t raw -L");
        look();
        assert_eq!(names(), ["raw\n", ""]);
        assert_eq!(run("nft", "list ruleset"), "");
    });
}

#[test]
fn ipsec_policies_look() {
    sandbox(async |_| {
        const POLICY: &str = "src 10.1.0.0/16 dst 10.2.0.0/16";
        assert_eq!(look(), ["", ""]);
        ip(&format!("xfrm policy add {POLICY} dir in tmpl proto esp mode transport"));
        assert_eq!(look(), ["", ""], "what comes in is forwarded or not whatever such a policy says");
        for direction in ["out", "fwd"] {
            ip(&format!("xfrm policy add {POLICY} dir {direction} tmpl proto esp mode transport"));
            assert_eq!(look(), ["there are IPsec policies"; 2], "{direction}");
            ip(&format!("xfrm policy delete {POLICY} dir {direction}"));
            assert_eq!(look(), ["", ""], "{direction}");
        }
    });
}

/// Functions that no table tells of. Where the kernel does not list them, they cannot be known.
#[test]
fn functions_that_nobody_knows_look() {
    sandbox(async |_| {
        let mut inquiry = Inquiry::new();
        assert_eq!(onlookers(&inquiry.look()), ["", ""]);
        // Connection tracking is at the hooks as soon as a rule needs it.
        run("nft", "add table inet t { chain c { type filter hook input priority 0; ct state new; }; }");
        assert_eq!(onlookers(&inquiry.look()), ["", ""]);
        if !inquiry.lists_functions() {
            eprintln!("SKIPPED as far as it is about functions: this kernel does not list those at its hooks");
            return;
        }
        // A rule about what the node itself receives brings a function to a hook that all packets pass.
        run("nft", "add table ip s { chain c { type filter hook input priority 0; tcp dport 9 synproxy; }; }");
        assert_eq!(onlookers(&inquiry.look()), ["function ipv4_synproxy_hook is at postrouting", ""]);
    });
}

/// Waits for a state of the fast path, and says how long it took.
async fn until(path: &mut watch::Receiver<FastPath>, open: [bool; 2]) -> Duration {
    let started = Instant::now();
    path.wait_for(|path| path.is_open() == open).await.unwrap();
    started.elapsed()
}

/// A rule is obeyed within two seconds: this is how long it takes until it is known, most of the time far less.
#[test]
fn changes_are_followed() {
    sandbox(async |_| {
        let mut path = follow(FastPathMode::Auto).unwrap();
        assert_eq!(path.borrow_and_update().is_open(), [true, true]);
        let mut times = Vec::new();
        run("nft", "add table inet t { chain c { type filter hook forward priority 0; }; }");
        for (commands, open) in [
            (&["nft add rule inet t c counter"][..], [false, false]),
            (&["nft flush chain inet t c"], [true, true]),
            (&["nft add rule inet t c counter", "iptables-legacy -P FORWARD DROP"], [false, false]),
            (&["nft flush chain inet t c"], [false, true]),
            (&["iptables-legacy -P FORWARD ACCEPT"], [true, true]),
            (&["ip6tables-legacy -t raw -A PREROUTING -j NOTRACK"], [true, false]),
            (&["ip6tables-legacy -t raw -F"], [true, true]),
            (&["iptables-nft -A FORWARD -j ACCEPT"], [false, true]),
            (&["nft delete table ip filter"], [true, true]),
        ] {
            apply(commands);
            times.push((commands, until(&mut path, open).await));
        }
        eprintln!("{times:?}");
        let slow: Vec<_> = times.iter().filter(|(_, time)| *time > Duration::from_secs(2)).collect();
        // A machine that is overloaded may be late once.
        assert!(slow.len() <= 1, "{slow:?}");
    });
}

#[test]
fn the_user_has_the_last_word() {
    sandbox(async |_| {
        run("nft", "add table inet t { chain c { type filter hook forward priority 0; policy drop; }; }");
        for (mode, open) in [(FastPathMode::Auto, false), (FastPathMode::Always, true), (FastPathMode::Never, false)] {
            assert_eq!(follow(mode).unwrap().borrow().is_open(), [open; 2], "{mode:?}");
        }
    });
}

/// Time of the processor, not of the clock: others may be busy on it.
#[test]
fn looking_where_nothing_has_changed_costs_next_to_nothing() {
    sandbox(async |_| {
        run("iptables-legacy", "-A INPUT -j ACCEPT");
        run("ip6tables-legacy", "-A INPUT -j ACCEPT");
        let chains: String = (0..20_000).map(|number| format!("add chain ip t c{number}\n")).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("add table ip t\n{chains}")).unwrap();
        run("nft", &format!("-f {}", file.path().display()));
        let mut inquiry = Inquiry::new();
        let mut look = || {
            let before = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
            assert_eq!(onlookers(&inquiry.look()), ["", ""]);
            Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap()) - before
        };
        let first = look();
        let mut others: Vec<Duration> = (0..100).map(|_| look()).collect();
        others.sort_unstable();
        eprintln!("20,000 chains: {first:?} the first time, {:?} when nothing has changed (median)", others[50]);
        // Nothing is read of chains that have not changed. (Emulated processors are slow, but at both.)
        assert!(others[50] < first / 10, "{:?}", others[50]);
    });
}
