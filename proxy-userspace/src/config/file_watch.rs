use std::{path::PathBuf, time::Duration};

/// Tells when the configuration file says something else than at the start.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    text: Option<String>,
}

impl FileWatch {
    /// How often the file is read. It is small and seldom changes; reading it survives every way of replacing it, the
    /// link swap of a mounted ConfigMap among them, without a watch on each directory of the path.
    const INTERVAL: Duration = Duration::from_secs(5);

    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = std::fs::read_to_string(&path).ok();
        Self { path, text }
    }

    /// Warns of each change, for ever. To be run beside everything else: whoever starts it again and again waits for a
    /// whole interval each time.
    pub async fn warn(mut self) {
        loop {
            self.changed(Self::INTERVAL).await;
            tracing::warn!("the configuration file has changed; restart the agent to use it");
        }
    }

    /// Returns when the content differs from what was last seen. A file that is absent for a while is no change.
    async fn changed(&mut self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if let Ok(text) = std::fs::read_to_string(&self.path)
                && self.text.as_ref() != Some(&text)
            {
                self.text = Some(text);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn row_13_a_written_and_a_renamed_file_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        std::fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        let interval = Duration::from_millis(5);

        let unchanged = tokio::time::timeout(Duration::from_millis(50), watch.changed(interval));
        assert!(unchanged.await.is_err());
        std::fs::write(&path, "b").unwrap();
        watch.changed(interval).await;
        std::fs::write(directory.path().join("next"), "c").unwrap();
        std::fs::rename(directory.path().join("next"), &path).unwrap();
        watch.changed(interval).await;
        std::fs::remove_file(&path).unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(50), watch.changed(interval));
        assert!(gone.await.is_err());
    }
}
