use super::{Algorithm, DetectLocal};

/// What the configuration says about the meaning of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Masquerade everything that is sent to a ClusterIP.
    pub masquerade_all: bool,
    /// For services that do not name one.
    pub algorithm: Algorithm,
    pub detect_local: DetectLocal,
}
