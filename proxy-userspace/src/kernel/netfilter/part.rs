use std::io;
use std::path::Path;

/// What socket(2) says for a netlink protocol that the kernel does not have.
pub const NO_PROTOCOL: &[i32] = &[libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];

/// A part of the kernel that it may lack, or have as a module.
///
/// Whoever asks for a part that is not there makes the kernel look for a module, which starts a process. So a part that
/// was missing once is asked for again only when its module is loaded; parts that are built in are never missing.
#[derive(Debug)]
pub struct Part {
    module: &'static str,
    is_missing: bool,
}

impl Part {
    pub const fn new(module: &'static str) -> Self {
        Self { module, is_missing: false }
    }

    /// Runs `ask` unless the part is known to be missing. `None`: it is missing, which one of the error numbers `signs`
    /// has told now or before.
    ///
    /// # Errors
    /// Any other of `ask`.
    pub fn ask<T>(&mut self, signs: &[i32], ask: impl FnOnce() -> io::Result<T>) -> io::Result<Option<T>> {
        if self.is_missing && !Path::new("/sys/module").join(self.module).exists() {
            return Ok(None);
        }
        let answer = ask();
        self.is_missing = matches!(&answer, Err(cause) if cause.raw_os_error().is_some_and(|it| signs.contains(&it)));
        if self.is_missing { Ok(None) } else { answer.map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_asked_for_again() {
        let mut part = Part::new("no-such-module");
        let missing = || Err::<(), _>(io::Error::from_raw_os_error(libc::EINVAL));
        assert!(part.ask(&[libc::EPERM], missing).is_err(), "not a sign");
        assert_eq!(part.ask(&[libc::EINVAL], missing).unwrap(), None);
        assert_eq!(part.ask(&[libc::EINVAL], || -> io::Result<()> { panic!("asked again") }).unwrap(), None);
    }
}
