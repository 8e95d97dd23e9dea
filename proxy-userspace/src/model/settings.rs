use super::Algorithm;

/// What the configuration says about the meaning of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Masquerade everything that pods send to a ClusterIP.
    pub masquerade_all: bool,
    /// For services that do not name one.
    pub algorithm: Algorithm,
}
