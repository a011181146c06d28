//! The one connection that a load has besides those of its workers. (A take-over from a stopped run
//! opens a second one for a moment.)

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::connect::{self, ConnectError, ConnectSettings, skip_statement_names};
use crate::error::Error;
use crate::ledger;
use crate::report::Console;
use crate::worker::{Attempts, RetryLimits};

/// How long a server is looked for that has never answered: a name or a port may be wrong, and who
/// waits for the message should have it soon; a server that is being restarted refuses for a moment
/// only, and then says that it is starting.
const LOOKING_FOR_A_SERVER: Duration = Duration::from_secs(5);

/// How long no answer is no reason for a word.
const SILENCE: Duration = Duration::from_secs(3);

/// A connection that is opened when it is needed, and again when it is lost. What is asked on it has
/// a time limit, and is asked again while the fault is one that passes.
pub struct ControlConnection {
    server: ConnectSettings,
    limits: RetryLimits,
    console: Console,
    client: Option<Client>,
    /// The server process of this connection, or of the one before it, which may still hold locks:
    /// what is lost on the way is not lost to the server.
    process: Option<Process>,
    /// Whether the server has ever answered.
    reached: bool,
}

/// A server process that serves one connection and no other.
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: i32,
    /// Microseconds since 1970.
    start: i64,
}

impl ControlConnection {
    pub fn new(server: &ConnectSettings, limits: RetryLimits, console: &Console) -> Self {
        ControlConnection {
            server: server.clone(),
            limits,
            console: console.clone(),
            client: None,
            process: None,
            reached: false,
        }
    }

    /// Another one to the same server.
    pub fn another(&self) -> Self {
        self.to(&self.server)
    }

    /// One to a server of other settings.
    pub fn to(&self, server: &ConnectSettings) -> Self {
        Self::new(server, self.limits, &self.console)
    }

    pub fn server(&self) -> &ConnectSettings {
        &self.server
    }

    /// Longest wait for one answer.
    pub fn answer_timeout(&self) -> Duration {
        self.limits.answer_timeout
    }

    /// The connection; one try.
    pub async fn client(&mut self) -> Result<&mut Client, ConnectError> {
        let client = self.take().await?;
        Ok(self.client.insert(client))
    }

    async fn take(&mut self) -> Result<Client, ConnectError> {
        let open = self.client.take().filter(|client| !client.is_closed());
        if let Some(client) = open {
            return Ok(client);
        }
        let client = connect::connect(&self.server).await?;
        self.reached = true;
        self.process = Process::follow(&client, self.process).await;
        Ok(client)
    }

    /// Does `work`, which asks the server something and gives the connection back, within the answer
    /// timeout; again, on a new connection, while a fault that passes stands in the way and the
    /// limits allow it.
    ///
    /// Statements with a name belong into a transaction: behind a pooler they are lost outside.
    ///
    /// # Errors
    /// The last one of `work`.
    pub async fn ask<T, F>(
        &mut self,
        doing: &'static str,
        work: impl FnMut(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Client, T), Error>>,
    {
        self.ask_within(self.limits.answer_timeout, doing, work)
            .await
    }

    /// Makes sure that the ledger is there and of this version.
    ///
    /// # Errors
    /// When it is not, and this role may not change that.
    pub async fn require_ledger(&mut self) -> Result<(), Error> {
        let require = |mut client: Client| async {
            ledger::require(&mut client).await?;
            Ok((client, ()))
        };
        self.ask("preparing the ledger", require).await
    }

    /// As [`Self::ask`], where one answer is not all there is to wait for.
    pub async fn ask_within<T, F>(
        &mut self,
        limit: Duration,
        doing: &'static str,
        mut work: impl FnMut(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Client, T), Error>>,
    {
        let mut tries = self.tries(doing);
        loop {
            let (answer_timeout, console) = (self.limits.answer_timeout, self.console.clone());
            let asked = async {
                let taken = timeout(answer_timeout, self.take()).await;
                let client = taken.map_err(|_| Error::NoAnswer {
                    doing,
                    limit: answer_timeout,
                })??;
                if tries.again {
                    // Perhaps it was a name that another program has left behind a pooler.
                    skip_statement_names(&client).await;
                }
                work(client).await
            };
            let answered = patiently(limit, asked, || {
                // Where more than one answer is awaited, whoever awaits them tells.
                if limit <= answer_timeout {
                    console.notice(&format!(
                        "{doing}: the server does not answer yet, perhaps it waits for a lock; it is waited for, {limit:?} at most (--answer-timeout)"
                    ));
                }
            });
            let answered = answered.await;
            let error = match answered {
                Ok(Ok((client, answer))) => {
                    self.client = Some(client);
                    return Ok(answer);
                }
                // Something may be left on the connection, which is gone with the work.
                Ok(Err(error)) => error,
                Err(_) => Error::NoAnswer { doing, limit },
            };
            // Also a refusal is an answer.
            self.reached |=
                matches!(&error, Error::Connect(refusal) if refusal.sqlstate().is_some());
            tries.pause(error, self.reached).await?;
        }
    }

    /// As [`Self::ask`], with one try, and `limit` to connect; what `work` waits for is its own.
    pub async fn once<T, F>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(Client, T), Error>>,
    {
        let taken = timeout(limit, self.take()).await;
        let doing = "connecting";
        let client = taken.map_err(|_| Error::NoAnswer { doing, limit })??;
        let (client, answer) = work(client).await?;
        self.client = Some(client);
        Ok(answer)
    }

    /// Tries of something else that needs the server.
    pub fn tries(&self, doing: &'static str) -> Tries {
        Tries {
            doing,
            attempts: Attempts::new(self.limits, 0),
            began: Instant::now(),
            again: false,
            console: self.console.clone(),
        }
    }

    /// Closes the connection: something may be left on it.
    pub fn forget(&mut self) {
        self.client = None;
    }
}

/// Awaits `work` for `limit` at most; calls `tell` if that takes long.
async fn patiently<T>(
    limit: Duration,
    work: impl Future<Output = T>,
    tell: impl FnOnce(),
) -> Result<T, Elapsed> {
    let mut work = pin!(timeout(limit, work));
    match timeout(SILENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            tell();
            work.await
        }
    }
}

impl Process {
    /// Ends `before`, whose connection is given up, and tells the process of `client`; `None` behind
    /// a pooler, where it serves others too.
    async fn follow(client: &Client, before: Option<Process>) -> Option<Process> {
        let (pid, start) = before.map_or((0, 0), |process| (process.pid, process.start));
        let sql = format!(
            "SELECT pid, start FROM (
                 SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint AS start
                 FROM pg_stat_activity WHERE pid IN ({pid}, pg_backend_pid())) AS known
             WHERE pid = pg_backend_pid() OR CASE WHEN start = {start} THEN pg_terminate_backend(pid) ELSE false END
             ORDER BY pid = pg_backend_pid() DESC LIMIT 1"
        );
        // Whatever becomes of this is no fault of what is to be asked.
        let answer = client.simple_query(&sql).await.ok()?;
        let process = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Process {
                pid: row.get(0)?.parse().ok()?,
                start: row.get(1)?.parse().ok()?,
            }),
            _ => None,
        });
        process.filter(|process| connect::process_of_login(client) == Some(process.pid))
    }
}

/// Tries of one thing, with pauses between them.
pub struct Tries {
    doing: &'static str,
    attempts: Attempts,
    began: Instant,
    again: bool,
    console: Console,
}

impl Tries {
    /// Waits until the next try after `error`. `reached`: the server is known to be there.
    ///
    /// # Errors
    /// `error`, if there is to be no other try.
    pub async fn pause(&mut self, error: Error, reached: bool) -> Result<(), Error> {
        let Some(wait) = error.pace().and_then(|pace| self.attempts.wait(pace)) else {
            return Err(error);
        };
        let nobody_there =
            !reached && matches!(&error, Error::Connect(none) if none.sqlstate().is_none());
        if nobody_there && self.began.elapsed() + wait > LOOKING_FOR_A_SERVER {
            return Err(error);
        }
        let (doing, why) = (self.doing, error.chain());
        let why = why.strip_prefix(&format!("{doing}: ")).unwrap_or(&why);
        self.console
            .notice(&format!("{doing}: {why}; trying again in {wait:.1?}"));
        tokio::time::sleep(wait).await;
        self.again = true;
        Ok(())
    }
}
