use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use ipnet::IpNet;

use super::address::host_and_port;

/// Which addresses are asked through a proxy: what the environment says, by the rules of Go's `net/http`
/// (`ProxyFromEnvironment`), which kube-proxy follows. They are not curl's: `ALL_PROXY` counts for nothing, lower case
/// comes first, and what is on this machine is always asked directly.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Proxies {
    https: Option<Intercept>,
    http: Option<Intercept>,
    direct: Vec<Rule>,
    /// For every address, instead of all the others.
    fixed: Option<Intercept>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    All,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// `name` begins with a dot.
    Domain {
        name: String,
        port: Option<u16>,
        itself: bool,
    },
}

impl Proxies {
    /// Returns what cannot be used as well, one line each; it is without effect.
    pub(super) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let mut unusable = Vec::new();
        let mut proxy = |names: [&'static str; 2]| {
            let (name, text) = first(&variable, names)?;
            let proxy = parse(&text);
            if proxy.is_none() {
                // Without the value, which may hold a password.
                unusable.push(format!("the environment variable {name} is not the URL of an HTTP or SOCKS5 proxy"));
            }
            proxy
        };
        let (https, http) = (proxy(["https_proxy", "HTTPS_PROXY"]), proxy(["http_proxy", "HTTP_PROXY"]));
        let direct = first(&variable, ["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
        let direct = direct.split(',').filter_map(Rule::parse).collect();
        (Self { https, http, direct, fixed: None }, unusable)
    }

    /// With the proxy of a kubeconfig, which is for every address.
    pub(super) fn with_fixed(self, url: &str) -> Option<Self> {
        let is_known = ["http://", "https://", "socks5://"].iter().any(|scheme| url.starts_with(scheme));
        let fixed = parse(url).filter(|_| is_known)?;
        Some(Self { fixed: Some(fixed), ..self })
    }

    /// The proxy to ask `address` through; `None`: directly.
    pub(in super::super) fn of(&self, address: &Uri) -> Option<&Intercept> {
        if self.fixed.is_some() {
            return self.fixed.as_ref();
        }
        let proxy = if address.scheme_str() == Some("https") { &self.https } else { &self.http };
        let (host, port) = host_and_port(address);
        let host = host.to_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        let is_here = host == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback());
        let is_direct = is_here || self.direct.iter().any(|rule| rule.covers(&host, port, ip));
        proxy.as_ref().filter(|_| !is_direct)
    }
}

/// The first of the variables that says something.
fn first(variable: impl Fn(&str) -> Option<String>, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value)))
}

/// A URL, or a host of an HTTP proxy.
fn parse(text: &str) -> Option<Intercept> {
    let proxy = Matcher::builder().all(text).build().intercept(&Uri::from_static("http://any"))?;
    let is_known = matches!(proxy.uri().scheme_str(), Some("http" | "https" | "socks5" | "socks5h"));
    (is_known && proxy.uri().host().is_some_and(|host| !host.is_empty())).then_some(proxy)
}

impl Rule {
    /// `None` for what Go's parser skips.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return Some(Self::All);
        }
        if let Ok(network) = entry.parse() {
            return Some(Self::Network(network));
        }
        let whole = entry.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = whole.parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let itself = !host.starts_with('.');
        let name = if itself { format!(".{host}") } else { host.to_owned() };
        (!host.is_empty()).then_some(Self::Domain { name, port, itself })
    }

    fn covers(&self, host: &str, port: u16, ip: Option<IpAddr>) -> bool {
        let is_port = |given: &Option<u16>| given.is_none_or(|given| given == port);
        match (self, ip.map(|ip| ip.to_canonical())) {
            (Self::All, _) => true,
            (Self::Network(network), Some(ip)) => network.contains(&ip),
            (Self::Address(address, given), Some(ip)) => address.to_canonical() == ip && is_port(given),
            (Self::Domain { name, port, itself }, None) => {
                (host.ends_with(name.as_str()) || *itself && Some(host) == name.get(1..)) && is_port(port)
            }
            (Self::Network(_) | Self::Address(..), None) | (Self::Domain { .. }, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> (Proxies, Vec<String>) {
        Proxies::from_environment(|wanted| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        })
    }

    fn proxy(variables: &[(&str, &str)], address: &str) -> Option<String> {
        let (proxies, unusable) = proxies(variables);
        assert_eq!(unusable, [""; 0]);
        proxies.of(&address.parse().unwrap()).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_scheme_of_the_server_chooses_the_variable() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "http://p:2")];
        assert_eq!(proxy(&both, "https://a:6443").as_deref(), Some("http://s:1/"));
        assert_eq!(proxy(&both, "http://a:8080").as_deref(), Some("http://p:2/"));
        assert_eq!(proxy(&both[1..], "https://a"), None);
        assert_eq!(proxy(&[("ALL_PROXY", "http://s:1"), ("all_proxy", "http://s:1")], "https://a"), None);
        assert_eq!(proxy(&[("https_proxy", "l"), ("HTTPS_PROXY", "u")], "https://a").as_deref(), Some("http://l/"));
        assert_eq!(proxy(&[("https_proxy", ""), ("HTTPS_PROXY", "u")], "https://a").as_deref(), Some("http://u/"));
    }

    #[test]
    fn a_proxy_is_a_url_or_a_host() {
        for (text, expected) in [
            ("proxy", "http://proxy/"),
            ("192.0.2.1:3128", "http://192.0.2.1:3128/"),
            ("[fd00::1]:3128", "http://[fd00::1]:3128/"),
            ("https://proxy:8443/path", "https://proxy:8443/"),
            ("socks5://proxy", "socks5://proxy/"),
            ("socks5h://proxy:1080", "socks5h://proxy:1080/"),
            ("http://user:p%40ss@proxy:1", "http://proxy:1/"),
        ] {
            assert_eq!(proxy(&[("HTTPS_PROXY", text)], "https://a").as_deref(), Some(expected), "{text}");
        }
        for text in ["ftp://proxy", "socks4://proxy", "http://", "http://a b", "://"] {
            let (proxies, unusable) = proxies(&[("https_proxy", text)]);
            let said = ["the environment variable https_proxy is not the URL of an HTTP or SOCKS5 proxy"];
            assert_eq!(unusable, said, "{text}");
            assert!(proxies.of(&Uri::from_static("https://a")).is_none());
        }
    }

    #[test]
    fn some_addresses_are_asked_directly() {
        for (no_proxy, direct, through) in [
            (
                "",
                &["localhost", "LocalHost:8080", "127.0.0.1:6443", "127.9.9.9", "[::1]:6443"][..],
                &["10.0.0.1", "local"][..],
            ),
            ("*", &["10.0.0.1:6443", "a.example", "[fd00::1]"], &[]),
            ("10.0.0.1", &["10.0.0.1:6443", "10.0.0.1"], &["10.0.0.2", "10.0.0.10"]),
            ("10.0.0.1:6443", &["10.0.0.1:6443"], &["10.0.0.1", "10.0.0.1:443"]),
            ("10.0.0.1:443", &["10.0.0.1"], &["10.0.0.1:6443"]),
            (
                "10.0.0.9/8, fd00::/8",
                &["10.255.0.1", "[fd12::1]:6443", "[::ffff:10.0.0.1]"],
                &["11.0.0.1", "[fe00::1]"],
            ),
            ("fd00::1", &["[fd00::1]:6443"], &["[fd00::2]"]),
            ("[fd00::1]", &["[fd00::1]:6443"], &["[fd00::2]"]),
            ("[fd00::1]:6443", &["[fd00::1]:6443"], &["[fd00::1]:443"]),
            (
                "example.com",
                &["example.com", "a.b.EXAMPLE.com:6443"],
                &["notexample.com", "example.com.org", "10.0.0.1"],
            ),
            (".example.com", &["a.example.com"], &["example.com"]),
            ("*.example.com", &["a.example.com"], &["example.com"]),
            ("Example.com:6443", &["example.com:6443", "a.example.com:6443"], &["example.com", "a.example.com:443"]),
            ("x, ,:80,[],a:b, .svc ,.cluster.local", &["x", "k.svc", "k.default.cluster.local"], &["svc", "a"]),
            ("0.0.0.0/0", &["10.0.0.1"], &["a.example", "[fd00::1]"]),
        ] {
            let variables = [("HTTPS_PROXY", "http://s:1"), ("NO_PROXY", no_proxy)];
            for address in direct {
                assert_eq!(proxy(&variables, &format!("https://{address}")), None, "{address} with {no_proxy}");
            }
            for address in through {
                assert!(proxy(&variables, &format!("https://{address}")).is_some(), "{address} with {no_proxy}");
            }
        }
        let case = [("HTTPS_PROXY", "http://s:1"), ("no_proxy", "a"), ("NO_PROXY", "b")];
        assert_eq!((proxy(&case, "https://a"), proxy(&case, "https://b").is_some()), (None, true));
    }

    #[test]
    fn the_proxy_of_a_kubeconfig_is_for_every_address() {
        let (environment, _) = proxies(&[("HTTPS_PROXY", "http://s:1"), ("NO_PROXY", "*")]);
        for (url, is_taken) in [
            ("http://f:3128", true),
            ("https://f", true),
            ("socks5://f:1080", true),
            ("socks5h://f:1080", false),
            ("f:3128", false),
            ("ftp://f", false),
            ("http://", false),
        ] {
            let fixed = environment.clone().with_fixed(url);
            assert_eq!(fixed.is_some(), is_taken, "{url}");
            if let Some(proxies) = fixed {
                assert!(proxies.of(&Uri::from_static("https://127.0.0.1:6443")).is_some());
            }
        }
    }
}
