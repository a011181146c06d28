//! Leases: of two runs of one job one is at it, and the other knows which. By the server's clock, and
//! without locks of a session, so that they hold behind a pooler.

use std::fmt;
use std::fs;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient};

use super::error::{LedgerError, refused};

/// How long a lease lasts that is not renewed. Its holder renews it three times as often.
const LASTS: Duration = Duration::from_secs(30);

/// Between two renewals.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);

/// A lease that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    job: String,
    /// The number of the run; one that takes over has a greater one.
    epoch: i64,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    host: String,
    process: i32,
    instance: String,
    /// As the server writes it.
    since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder {
            host,
            process,
            since,
            ..
        } = self;
        write!(f, "process {process} on {host}, at it since {since}")
    }
}

/// What a process is called, so that none is taken for another.
struct Me {
    host: String,
    process: i32,
    instance: String,
}

impl Me {
    fn new() -> Self {
        let process = std::process::id().cast_signed();
        Me {
            host: read("/proc/sys/kernel/hostname")
                .unwrap_or_else(|| "an unknown host".to_string()),
            process,
            instance: instance(process).unwrap_or_default(),
        }
    }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

/// The boot of the machine, the namespace of process numbers, and when in it this one began.
fn instance(process: i32) -> Option<String> {
    let boot = read("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = read(&format!("/proc/{process}/stat"))?;
    // "pid (name) state parent ..."; the name may hold anything. Field 22 is the start.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let (state, start) = (fields.next()?, fields.nth(18)?);
    (state != "Z").then(|| format!("{boot} {} {start}", namespace.display()))
}

impl Holder {
    /// Whether it is a process of this machine that has ended.
    fn is_gone(&self) -> bool {
        let (Some(theirs), Some(mine)) = (
            place(&self.instance),
            instance(std::process::id().cast_signed()),
        ) else {
            return false;
        };
        place(&mine) == Some(theirs) && instance(self.process).as_deref() != Some(&self.instance)
    }
}

/// The boot and the namespace of an instance.
fn place(instance: &str) -> Option<&str> {
    instance.rsplit_once(' ').map(|(place, _)| place)
}

impl Lease {
    /// Takes the lease of `job` if nobody holds it, if its holder is gone, or if `over` says so; else
    /// tells who holds it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn take(
        client: &Client,
        job: &str,
        over: bool,
    ) -> Result<Result<Self, Holder>, LedgerError> {
        let refused = refused("taking the lease of the job");
        let me = Me::new();
        let lasts = LASTS.as_secs_f64();
        loop {
            // Looked at first: who merges has it locked, and would be waited for.
            let sql = "SELECT epoch, host, process, instance, to_char(since, 'YYYY-MM-DD HH24:MI:SS TZ') AS since,
                              renewed_at < clock_timestamp() - make_interval(secs => $2) AS free
                       FROM pgrung.leases WHERE job = $1";
            let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                [(&job, Type::TEXT), (&lasts, Type::FLOAT8)];
            let row = client.query_typed_opt(sql, &parameters).await;
            let mut seen: Option<i64> = None;
            if let Some(row) = row.map_err(refused)? {
                seen = row.get("epoch");
                let holder = Holder {
                    host: row.get("host"),
                    process: row.get("process"),
                    instance: row.get("instance"),
                    since: row.get("since"),
                };
                if !over && !row.get::<_, bool>("free") && !holder.is_gone() {
                    return Ok(Err(holder));
                }
            }
            let sql = "INSERT INTO pgrung.leases AS l (job, epoch, host, process, instance, since, renewed_at)
                       VALUES ($1, 1, $2, $3, $4, clock_timestamp(), clock_timestamp())
                       ON CONFLICT (job) DO UPDATE SET epoch = l.epoch + 1, host = excluded.host, process = excluded.process,
                           instance = excluded.instance, since = excluded.since, renewed_at = excluded.renewed_at
                       WHERE $5 OR l.epoch = $6 RETURNING epoch";
            let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
                (&job, Type::TEXT),
                (&me.host, Type::TEXT),
                (&me.process, Type::INT4),
                (&me.instance, Type::TEXT),
                (&over, Type::BOOL),
                (&seen, Type::INT8),
            ];
            let taken = client.query_typed_opt(sql, &parameters).await;
            if let Some(row) = taken.map_err(refused)? {
                let (job, epoch) = (job.to_string(), row.get("epoch"));
                return Ok(Ok(Lease { job, epoch }));
            }
        }
    }

    /// Renews it; false if another run has taken over.
    pub async fn renew(&self, client: &Client) -> Result<bool, tokio_postgres::Error> {
        let sql =
            "UPDATE pgrung.leases SET renewed_at = clock_timestamp() WHERE job = $1 AND epoch = $2";
        Ok(client.execute_typed(sql, &self.key()).await? == 1)
    }

    /// Whether it is still ours; it stays so until the end of the caller's transaction. It can be
    /// renewed meanwhile, but not taken.
    pub async fn hold(&self, client: &impl GenericClient) -> Result<bool, tokio_postgres::Error> {
        let sql = "SELECT 1 FROM pgrung.leases WHERE job = $1 AND epoch = $2 FOR KEY SHARE";
        Ok(client.query_typed_opt(sql, &self.key()).await?.is_some())
    }

    /// Gives it back.
    pub async fn give_back(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let sql = "UPDATE pgrung.leases SET renewed_at = '-infinity' WHERE job = $1 AND epoch = $2";
        client.execute_typed(sql, &self.key()).await.map(|_| ())
    }

    fn key(&self) -> [(&(dyn ToSql + Sync), Type); 2] {
        [(&self.job, Type::TEXT), (&self.epoch, Type::INT8)]
    }

    /// What it is of.
    pub fn job(&self) -> &str {
        &self.job
    }
}
