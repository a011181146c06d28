//! The lease of a job: taken before the load begins, renewed while it runs, given back at its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::connection::ControlConnection;
use super::control::Control;
use crate::error::Error;
use crate::job::{LoadSettings, Overlap};
use crate::ledger::{Lease, LedgerError, RENEW_EVERY};
use crate::stop::{SetOnDrop, Stop};

/// Between two looks whether the other run has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A lease that is held, and renewed until this goes.
pub struct Held {
    pub lease: Lease,
    renewing: JoinHandle<()>,
    over: SetOnDrop,
    lost: Arc<Stop>,
}

impl Held {
    /// Takes the lease of `job`, as the policy says if another run has it.
    ///
    /// # Errors
    /// When the other run does not end in time, and what the server says.
    pub async fn take(
        job: &str,
        settings: &LoadSettings,
        connection: &mut ControlConnection,
        control: &Control,
    ) -> Result<Self, Error> {
        connection.require_ledger().await?;
        let began = Instant::now();
        let mut told = false;
        let lease = loop {
            let over = settings.overlap == Overlap::TakeOver;
            let take = |client: Client| async {
                let taken = Lease::take(&client, job, over).await?;
                Ok((client, taken))
            };
            let holder = match connection.ask("taking the lease of the job", take).await? {
                Ok(lease) => break lease,
                Err(holder) => holder.to_string(),
            };
            let limit = match settings.overlap {
                Overlap::Wait(limit) => limit,
                Overlap::Fail | Overlap::TakeOver => Some(Duration::ZERO),
            };
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                return Err(Error::Overlap {
                    job: job.to_string(),
                    holder,
                });
            }
            if !told {
                told = true;
                control.console.notice(&format!(
                    "job {job}: another run is at it: {holder}; it is waited for (--overlap-policy)"
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let (over, lost) = (Arc::<Stop>::default(), Arc::<Stop>::default());
        let renewing = renew(
            lease.clone(),
            connection.another(),
            over.clone(),
            lost.clone(),
        );
        Ok(Held {
            lease,
            renewing: tokio::spawn(renewing),
            over: SetOnDrop(over),
            lost,
        })
    }

    /// Whether another run has taken the lease.
    pub fn is_lost(&self) -> bool {
        self.lost.is_set()
    }

    /// Makes sure that it is ours now.
    ///
    /// # Errors
    /// When it is not, and what the server says.
    pub async fn check(&self, connection: &mut ControlConnection) -> Result<(), Error> {
        let doing = "looking whether the lease is ours";
        let look = |client: Client| async {
            let ours = self.lease.hold(&client).await;
            let ours = ours.map_err(Error::server(doing))?;
            Ok((client, ours))
        };
        match connection.ask(doing, look).await? {
            true => Ok(()),
            false => Err(LedgerError::TakenOver(self.lease.job().to_string()).into()),
        }
    }

    /// Gives it back. If that fails, it ends by itself.
    pub async fn give_back(self, connection: &mut ControlConnection) {
        drop(self.over);
        // It only renews.
        let _ = self.renewing.await;
        let give_back = async {
            let client = connection.client().await.ok()?;
            self.lease.give_back(client).await.ok()
        };
        let _ = tokio::time::timeout(LOOK_EVERY * 5, give_back).await;
    }
}

/// A stop for a load: set when `asked` is, and when its lease is lost.
pub fn follow(asked: &Arc<Stop>, held: Option<&Held>) -> (Arc<Stop>, JoinHandle<()>) {
    let stop = Arc::<Stop>::default();
    let (asked, followed) = (asked.clone(), stop.clone());
    let lost = held.map(|held| held.lost.clone());
    let following = async move {
        match lost {
            Some(lost) => tokio::select! {
                () = asked.wait() => {}
                () = lost.wait() => {}
            },
            None => asked.wait().await,
        }
        followed.set();
    };
    (stop, tokio::spawn(following))
}

/// Renews the lease until it is `over` or `lost`. A renewal that fails is tried again: as long as
/// nobody takes the lease it is ours.
async fn renew(lease: Lease, mut connection: ControlConnection, over: Arc<Stop>, lost: Arc<Stop>) {
    let mut pause = RENEW_EVERY;
    while !over.within(pause).await {
        let renew = async {
            let client = connection.client().await.ok()?;
            lease.renew(client).await.ok()
        };
        let renewed = tokio::select! {
            renewed = tokio::time::timeout(RENEW_EVERY, renew) => renewed.ok().flatten(),
            () = over.wait() => return,
        };
        pause = match renewed {
            Some(true) => RENEW_EVERY,
            Some(false) => return lost.set(),
            None => {
                connection.forget();
                LOOK_EVERY
            }
        };
    }
}
