use std::fmt;

/// What an agent that is not ready waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Maps and programs, to be loaded into the kernel.
    Programs,
    /// The first complete lists of these kinds, from there.
    Lists { kinds: Vec<&'static str>, source: String },
    /// The first complete state, to be written into the maps.
    Sync,
    /// Programs on a device that should carry some.
    Device { name: String, cause: String },
}

/// How an agent fares. Never changed, only replaced by the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub awaited: Vec<Awaited>,
}

impl Default for Status {
    /// Of an agent that has just been started.
    fn default() -> Self {
        Self { awaited: vec![Awaited::Programs] }
    }
}

impl Status {
    /// The first complete state is in the maps, and every program is on every device that should carry it.
    pub fn is_ready(&self) -> bool {
        self.awaited.is_empty()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ready() {
            return f.write_str("ready");
        }
        for (at, awaited) in self.awaited.iter().enumerate() {
            write!(f, "{}{awaited}", if at == 0 { "waiting for: " } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Programs => f.write_str("maps and programs to be loaded into the kernel"),
            Self::Lists { kinds, source } => write!(f, "lists of {} from {source}", enumerated(kinds)),
            Self::Sync => f.write_str("the first complete state to be written into the maps"),
            Self::Device { name, cause } => write!(f, "programs on {name} ({cause})"),
        }
    }
}

/// `a`, `a and b`, `a, b and c`.
fn enumerated(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_is_named() {
        let lists =
            |kinds: &[&'static str]| Awaited::Lists { kinds: kinds.to_vec(), source: "https://10.0.0.1:6443".into() };
        let device = Awaited::Device { name: "eth0".into(), cause: "Numerical result out of range".into() };
        for (awaited, text) in [
            (vec![], "ready"),
            (vec![Awaited::Programs], "waiting for: maps and programs to be loaded into the kernel"),
            (vec![lists(&["Services"])], "waiting for: lists of Services from https://10.0.0.1:6443"),
            (
                vec![lists(&["Services", "EndpointSlices", "Nodes"])],
                "waiting for: lists of Services, EndpointSlices and Nodes from https://10.0.0.1:6443",
            ),
            (
                vec![Awaited::Sync, device],
                "waiting for: the first complete state to be written into the maps; programs on eth0 (Numerical \
                 result out of range)",
            ),
        ] {
            let status = Status { awaited };
            assert_eq!(status.to_string(), text);
            assert_eq!(status.is_ready(), text == "ready");
        }
        assert!(!Status::default().is_ready());
    }
}
