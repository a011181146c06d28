//! `pgrung run`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use super::done::Done;
use super::{check, hook, load, print};
use crate::cli::RunArgs;
use crate::connect::ConnectSettings;
use crate::embedded::Embedded;
use crate::error::Error;
use crate::exit_code::Exit;
use crate::job::{JobFile, JobLoad, SettingsError, schema};
use crate::report::{Console, LogFormat};
use crate::server_error::one_line;
use crate::source::Input;
use crate::stop::Stop;

pub async fn run(args: &RunArgs, console: &Console, stop: &Arc<Stop>) -> Result<Done, Error> {
    if args.schema {
        let schema = schema();
        return Ok(Done::new(
            format!("{schema:#}\n"),
            json!({ "schema": schema }),
        ));
    }
    let started = SystemTime::now();
    let job = job_file(args)?;
    let loads = job.chosen(&args.only)?;
    let (server, _private) = server(&job, console).await?;
    let mut night = Night {
        checks: args.check,
        job: &job,
        console,
        began: Instant::now(),
        exit: Exit::Loaded,
        loads: Vec::new(),
        failed: Vec::new(),
        not_run: Vec::new(),
        told: Ok(()),
    };
    let count = loads.len();
    for (number, load) in (1..).zip(loads) {
        match night.reason_not_to_run(load, stop) {
            Some(why) => night.not_run.push((load.name.clone(), why)),
            None => {
                console.notice(&format!("load {} ({number} of {count})", load.name));
                night.load(load, &server, stop).await;
            }
        }
    }
    if stop.is_set() {
        night.exit = night.exit.worse(Error::interrupted(stop).exit());
    }
    let mut done = night.done();
    let hook = match done.exit.is_failure() {
        true => &job.on_failure,
        false => &job.on_success,
    };
    // Nobody is to act on what was rolled back.
    if let Some(hook) = hook.as_ref().filter(|_| !args.check) {
        let told = hook::tell(hook, &job.dir, &done.account("run", started)).await;
        done.or_failed(told, console);
    }
    Ok(done)
}

/// What is read by the run as far as that is known before: the job file, and the inputs.
pub fn read(args: &RunArgs) -> Vec<Input> {
    let file = args.file.clone().map(Input::File);
    let job = job_file(args).ok();
    let inputs = job
        .iter()
        .flat_map(|job| job.loads.iter().flat_map(JobLoad::inputs));
    file.into_iter().chain(inputs).collect()
}

fn job_file(args: &RunArgs) -> Result<JobFile, SettingsError> {
    let environment = |name: &str| std::env::var(name).ok();
    JobFile::read(args.file.as_deref().unwrap_or("".as_ref()), &environment)
}

/// The server that all loads use, and what keeps a private one alive.
async fn server(
    job: &JobFile,
    console: &Console,
) -> Result<(ConnectSettings, Option<Embedded>), Error> {
    let server = job.connection.server(console).await;
    server.map_err(|error| match error.exit() {
        Exit::Usage => job.wrong_connection(error.chain()).into(),
        _ => error,
    })
}

/// A run of several loads.
struct Night<'a> {
    /// Whether the loads are rolled back.
    checks: bool,
    job: &'a JobFile,
    console: &'a Console,
    began: Instant,
    /// The worst so far.
    exit: Exit,
    /// The accounts of the loads that ran.
    loads: Vec<Value>,
    /// Names of those that failed.
    failed: Vec<String>,
    /// Names of those that did not run, and why.
    not_run: Vec<(String, String)>,
    /// Whether all that was to be printed could be.
    told: Result<(), Error>,
}

impl Night<'_> {
    /// What is done with each load.
    fn command(&self) -> &'static str {
        if self.checks { "check" } else { "load" }
    }

    fn reason_not_to_run(&self, load: &JobLoad, stop: &Stop) -> Option<String> {
        match self.failed.first() {
            _ if stop.is_set() => Some("the run was interrupted".to_string()),
            Some(failed) if !self.job.keep_going => Some(format!("{failed} has failed")),
            _ if load.is_passed_over() => Some("none of its inputs is there".to_string()),
            _ => None,
        }
    }

    /// Runs a load and tells how it ended.
    async fn load(&mut self, load: &JobLoad, server: &ConnectSettings, stop: &Arc<Stop>) {
        let (name, console) = (&load.name, self.console);
        let started = SystemTime::now();
        let mut done = match load.settings() {
            Ok(settings) if self.checks => check::one(server, settings, console, stop).await,
            Ok(settings) => load::one(server, settings, false, console, stop).await,
            Err(error) => Done::failed(&error.into()),
        };
        if done.fields.is_empty() {
            done.fields = load::nothing(load.partial());
        }
        done.error = done.error.map(|error| load.hidden(&error));
        let to_people = !console.is_quiet() && console.format() == LogFormat::Text;
        if to_people && !done.text.is_empty() && self.told.is_ok() {
            self.told = print(&format!("{}: {}", one_line(name), done.text));
        }
        if let Some(notice) = &done.notice {
            console.notice(&format!("{name}: {notice}"));
        }
        if let Some(error) = &done.error {
            console.error(&format!("{name}: {error}"));
        }
        if done.exit.is_failure() {
            self.failed.push(name.clone());
        }
        self.exit = self.exit.worse(done.exit);
        let mut account = json!({ "name": name });
        if let (Some(all), Value::Object(fields)) = (
            account.as_object_mut(),
            done.account(self.command(), started),
        ) {
            all.extend(fields);
        }
        self.loads.push(account);
    }

    fn done(self) -> Done {
        for (name, why) in &self.not_run {
            self.console.notice(&format!("{name} was not run: {why}"));
        }
        let not_run = self.not_run.iter();
        let not_run = not_run.map(|(name, why)| json!({ "name": name, "reason": why }));
        let not_run: Vec<Value> = not_run.collect();
        let count = |count: usize| {
            if count == 1 {
                "1 load".to_string()
            } else {
                format!("{count} loads")
            }
        };
        let text = format!(
            "{} in {:.2?}: {} failed, {} not run\n",
            count(self.loads.len()),
            self.began.elapsed(),
            self.failed.len(),
            not_run.len(),
        );
        let mut done = Done::new(text, json!({ "loads": self.loads, "not_run": not_run }));
        done.exit = self.exit;
        if !self.failed.is_empty() {
            let failed = count(self.failed.len());
            done.error = Some(format!("{failed} failed: {}", self.failed.join(", ")));
        } else if self.exit.is_failure() {
            // Between two loads.
            done.error = Some("interrupted".to_string());
        }
        done.or_failed(self.told, self.console);
        done
    }
}
