use std::{path::Path, time::Duration};

use serde::Deserialize;

use super::{ConfigError, unhonoured::duration};

/// For how long flows may be quiet, where the configuration says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackTimeouts {
    pub tcp_established: Option<Duration>,
    /// One end has closed.
    pub tcp_close_wait: Option<Duration>,
    /// No more than a question and an answer.
    pub udp: Option<Duration>,
    /// A longer exchange.
    pub udp_stream: Option<Duration>,
}

/// The section of the file that has them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Conntrack {
    tcp_established_timeout: Option<String>,
    tcp_close_wait_timeout: Option<String>,
    udp_timeout: Option<String>,
    udp_stream_timeout: Option<String>,
}

impl Conntrack {
    pub fn timeouts(&self, path: &Path) -> Result<ConntrackTimeouts, ConfigError> {
        // 0 leaves to kube-proxy's kernel what it has by itself, and to us what we have.
        let read = |field, text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => match duration(text) {
                Some(time) => Ok(Some(time).filter(|time| !time.is_zero())),
                None => Err(ConfigError::NotADuration { path: path.to_owned(), field, value: text.to_owned() }),
            },
        };
        Ok(ConntrackTimeouts {
            tcp_established: read("conntrack.tcpEstablishedTimeout", &self.tcp_established_timeout)?,
            tcp_close_wait: read("conntrack.tcpCloseWaitTimeout", &self.tcp_close_wait_timeout)?,
            udp: read("conntrack.udpTimeout", &self.udp_timeout)?,
            udp_stream: read("conntrack.udpStreamTimeout", &self.udp_stream_timeout)?,
        })
    }
}
