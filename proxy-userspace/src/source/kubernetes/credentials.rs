use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Uri;
use tokio::sync::Mutex;

use super::access::{Access, AccessError, Draft, Environment, Issued, Plugin};

/// How old what was read may be. So the files are followed without a watch on any of them: every request begins with a
/// look at them, and client-go's own limit is the same.
const FRESH: Duration = Duration::from_secs(1);

/// The way to the API server as it is now: certificates, tokens and the kubeconfig itself are replaced on disk while the
/// agent runs.
pub(super) struct Credentials {
    kubeconfig: Option<PathBuf>,
    /// Addresses that the command line gives.
    given: Vec<Uri>,
    environment: Environment,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The answer, and when it was found.
    latest: Option<(Instant, Result<Arc<Access>, AccessError>)>,
    /// What worked last, and what it was made of.
    good: Option<(Draft, Arc<Access>)>,
    issued: Option<(Plugin, Issued)>,
    /// Why `good` stands in for what there is now.
    told: Option<AccessError>,
    warnings: Vec<String>,
}

impl Credentials {
    pub(super) fn new(kubeconfig: Option<PathBuf>, given: Vec<Uri>, environment: Environment) -> Self {
        Self { kubeconfig, given, environment, state: Mutex::default() }
    }

    /// # Errors
    /// There is no way now, and there was none before; or a plugin does not issue anything any more.
    pub(super) async fn current(&self) -> Result<Arc<Access>, AccessError> {
        let mut state = self.state.lock().await;
        if let Some((at, answer)) = &state.latest
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let draft = Draft::read(self.kubeconfig.as_deref(), &self.given, &self.environment);
        let answer = state.answer(draft, &self.environment).await;
        state.latest = Some((Instant::now(), answer.clone()));
        answer
    }

    /// The server does not know who asks. A plugin is asked again, unless that has been done since.
    pub(super) async fn refused(&self, access: &Arc<Access>) {
        let mut state = self.state.lock().await;
        if state.good.as_ref().is_some_and(|(_, good)| Arc::ptr_eq(good, access)) && state.issued.take().is_some() {
            state.latest = None;
            state.good = None;
        }
    }
}

impl State {
    async fn answer(
        &mut self,
        draft: Result<Draft, AccessError>,
        environment: &Environment,
    ) -> Result<Arc<Access>, AccessError> {
        let draft = match draft {
            Ok(draft) => draft,
            Err(error) => return self.stand_in(error),
        };
        let is_issued_anew = match self.issue(&draft).await {
            Ok(is_new) => is_new,
            // What the same plugin issued before is over, or was refused.
            Err(error) if self.good.as_ref().is_some_and(|(last, _)| last.plugin == draft.plugin) => return Err(error),
            Err(error) => return self.stand_in(error),
        };
        if let Some((last, good)) = &self.good
            && *last == draft
            && !is_issued_anew
        {
            let good = good.clone();
            self.recovered();
            return Ok(good);
        }
        let issued = self.issued.as_ref().map(|(_, issued)| issued);
        match Access::new(&draft, issued, environment) {
            Err(error) => {
                // If it is what a plugin issued that is of no use, it is to be asked again.
                self.issued = None;
                self.stand_in(error)
            }
            Ok(access) => {
                if self.warnings != draft.warnings {
                    self.warnings.clone_from(&draft.warnings);
                    self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                }
                let access = Arc::new(access);
                self.good = Some((draft, access.clone()));
                self.recovered();
                Ok(access)
            }
        }
    }

    /// Sees to it that what the plugin issued is there and not over. Returns whether it is new.
    async fn issue(&mut self, draft: &Draft) -> Result<bool, AccessError> {
        let Some(plugin) = &draft.plugin else {
            self.issued = None;
            return Ok(false);
        };
        if self.issued.as_ref().is_some_and(|(from, issued)| from == plugin && !issued.is_over()) {
            return Ok(false);
        }
        self.issued = None;
        let issued = plugin.run().await.map_err(|reason| draft.error(reason))?;
        self.issued = Some((plugin.clone(), issued));
        Ok(true)
    }

    /// A file that is half-written or gone is no reason to give up what works.
    fn stand_in(&mut self, error: AccessError) -> Result<Arc<Access>, AccessError> {
        let Some((_, good)) = &self.good else { return Err(error) };
        if self.told.as_ref() != Some(&error) {
            tracing::warn!("{error}; what was read before is used");
            self.told = Some(error);
        }
        Ok(good.clone())
    }

    fn recovered(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("the credentials for the API server can be read again");
        }
    }
}
