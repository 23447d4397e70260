//! `loadgen find-capacity`: raises the load until something breaks, and names what it was.
//!
//! Read in this order: [`search`] (which load is next), [`step`] (a run of one load), [`limiter`]
//! (from its report to the name of a limit), [`forecast`] (what need not be tried), [`record`] (the
//! answer and its evidence).

mod cpu;
mod drained;
mod facts;
mod forecast;
mod limiter;
mod page;
mod progress;
mod record;
mod rules;
mod search;
mod step;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _};
use heartwheel::host::start_warning;

use self::drained::Drained;
use self::facts::Facts;
use self::forecast::Measured;
use self::limiter::Suspect;
use self::progress::Progress;
use self::record::{Attempt, Outcome, Record, Step};
use self::search::{Bounds, Next, Search};
use self::step::Ran;
use crate::cli::{Cli, Program};
use crate::host::cores;
use crate::limits;
use crate::run::watch_for_interrupts;
use crate::units::{parse_count, parse_duration, parse_share};

const EXAMPLES: &str = "\
Examples:
  loadgen find-capacity --slo 'rtt.p99<20ms' --max 200k
      how many clients a server of its own holds on this host, up to 200,000
  loadgen find-capacity --target tcp://127.0.0.1:7400 --server-pid $(pidof heartwheel) \\
          --slo 'rtt.p99<20ms' --from 10k --max 500k -i 10s -d 20s -o evidence.json
      a server that runs already, a heartbeat every 10 s, each load held for 20 s
  loadgen find-capacity --slo 'server.rss<1GiB' --max 20m --tolerance 1%
      how many fit into a GiB

Each load is a run of its own, with all that is judged there: everybody must open, the laws must
hold, and so must every --slo. A load that fails is run once more, and counts as failed if it fails
again. Standard output gets one line; the steps are told on standard error, the evidence by -o.
Exit: 0 there is an answer, 2 usage, 105 interrupted; if the first load fails already, what its run
would exit with: 99, 100 or 101.";

/// Raise the load until something breaks, and say what it was
#[derive(Clone, Debug, Args)]
#[command(
    after_help = EXAMPLES,
    long_about = None,
    mut_arg("connections", |flag| flag.hide(true)),
    mut_arg("duration", |flag| flag.default_value("10s").help("How long each load is held")),
    mut_arg("report", |flag| flag.help("Write the steps and their evidence as JSON; `-` is \
        standard output, which then holds nothing else")),
    mut_arg("html", |flag| flag.help("Write the steps and their evidence as a page")),
    mut_arg("no_live", |flag| flag.help("No line that changes, even on a terminal")),
)]
pub struct FindCapacity {
    /// The most clients to try
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub max: u32,

    /// The first load; nothing below it is tried
    #[arg(long, visible_alias = "from", value_name = "N", default_value = "1k",
        value_parser = parse_count)]
    pub min: u32,

    /// What holds and what does not may lie so far apart
    #[arg(long, value_name = "P", default_value = "5%", value_parser = parse_share)]
    pub tolerance: f64,

    /// The pause between two runs; against a --target it lasts until the server is as empty as it
    /// was
    #[arg(long, value_name = "D", default_value = "1s", value_parser = parse_duration)]
    pub settle: Duration,

    /// Loads that are tried at most
    #[arg(long, value_name = "N", default_value_t = limits::FIND_STEPS,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: u32,

    /// What and how to load.
    #[command(flatten, next_help_heading = "Flags of each run")]
    pub run: Cli,
}

impl FindCapacity {
    /// Searches.
    ///
    /// # Errors
    /// If the command line makes no sense, or the first run says so.
    pub fn run(&self) -> Result<u8> {
        let matches = Program::command().get_matches();
        let matches = matches.subcommand_matches("find-capacity").context("no such subcommand")?;
        self.check(matches)?;
        let mut hunt = Hunt::new(self, step::flags(matches))?;
        let record = hunt.hunt()?;
        self.show(&record)?;
        Ok(record.exit_code)
    }

    fn check(&self, matches: &ArgMatches) -> Result<()> {
        let given = matches.value_source("connections") == Some(ValueSource::CommandLine);
        ensure!(!given, "-c is what is searched for: say --max, and --from for the first load");
        ensure!(self.min > 0, "--from must be at least 1");
        ensure!(self.max >= self.min, "--max must be at least --from, which is {}", self.min);
        let alone = self.run.part.is_none() && self.run.start_at.is_none();
        ensure!(alone, "--part and --start-at are of one run by several generators");
        // Events may need the steady state that each load has, and sources all that there are.
        Cli { connections: self.max, ..self.run.clone() }.check()
    }

    fn show(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_string_pretty(record).context("writing the report")? + "\n";
        let mut out = std::io::stdout();
        match self.run.report.as_deref() {
            Some(file) if file == Path::new("-") => write!(out, "{json}")?,
            Some(file) => {
                writeln!(out, "{}", record.answer)?;
                fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
            }
            None => writeln!(out, "{}", record.answer)?,
        }
        if let Some(file) = &self.run.html {
            let page = page::page(record);
            fs::write(file, page).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

/// A search that goes on.
struct Hunt<'a> {
    command: &'a FindCapacity,
    flags: Vec<OsString>,
    search: Search,
    measured: Measured,
    drained: Drained<'a>,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
    began: Instant,
    steps: Vec<Step>,
    notes: Vec<String>,
    /// The clients of the last run, if any has been made.
    last: Option<u32>,
}

/// How a run is judged.
enum Judgement {
    Held,
    Failed(Vec<Suspect>),
    Interrupted,
}

impl<'a> Hunt<'a> {
    fn new(command: &'a FindCapacity, flags: Vec<OsString>) -> Result<Hunt<'a>> {
        let bounds = Bounds {
            from: command.min,
            max: command.max,
            tolerance: command.tolerance,
            steps: command.steps,
        };
        Ok(Hunt {
            command,
            flags,
            search: Search::new(bounds),
            measured: Measured::default(),
            drained: Drained::new(&command.run),
            progress: Progress::new(command.run.no_live),
            interrupted: watch_for_interrupts()?,
            began: Instant::now(),
            steps: Vec::new(),
            notes: Vec::new(),
            last: None,
        })
    }

    /// All steps, to the answer.
    fn hunt(&mut self) -> Result<Record> {
        self.progress.begin(self.command);
        let most = forecast::needs(&self.command.run, self.command.max);
        if let Some(warning) = start_warning(&most) {
            self.note(format!("{warning}; the search goes on until it shows"));
        }
        let ending = loop {
            match self.search.next() {
                Next::Done(ending) => break Some(ending),
                Next::Try(load, why) => {
                    if !self.step(load, why)? {
                        break None;
                    }
                }
            }
        };
        let (steps, notes) = (std::mem::take(&mut self.steps), std::mem::take(&mut self.notes));
        let record = Record::new(self.command, &self.search, ending, steps, self.began);
        self.progress.end(record.cure);
        Ok(Record { notes, ..record })
    }

    fn note(&mut self, note: String) {
        self.progress.line(&format!("note: {note}"));
        self.notes.push(note);
    }

    /// One load; whether the search goes on.
    fn step(&mut self, load: u32, why: String) -> Result<bool> {
        let number = self.steps.len() + 1;
        let foreseen = forecast::forecast(&self.command.run, load, self.measured)?;
        let rate = foreseen.is_none().then_some(self.command.run.connect_rate);
        self.progress.step(number, load, &why, rate);
        if let Some(suspect) = foreseen {
            self.progress.foreseen(&suspect);
            self.search.foreseen(load);
            self.steps.push(Step::foreseen(number, load, why, suspect));
            return Ok(true);
        }
        let mut step = Step::new(number, load, why);
        let judgement = self.judged_twice(load, &mut step)?;
        let goes_on = !matches!(judgement, Judgement::Interrupted);
        match judgement {
            Judgement::Held => {
                self.search.held(load);
                step.outcome = Outcome::Held;
            }
            Judgement::Failed(suspects) => {
                self.search.failed(load);
                step.outcome = Outcome::Failed;
                step.suspects = suspects;
            }
            Judgement::Interrupted => step.outcome = Outcome::Interrupted,
        }
        self.steps.push(step);
        Ok(goes_on)
    }

    /// A failure may be noise: it counts if it is seen twice.
    fn judged_twice(&mut self, load: u32, step: &mut Step) -> Result<Judgement> {
        let first = self.attempt(load, step)?;
        let Judgement::Failed(suspects) = &first else { return Ok(first) };
        // What is refused at the start is no noise.
        if step.attempts.last().is_some_and(Attempt::was_refused) {
            self.progress.refused(suspects);
            return Ok(first);
        }
        self.progress.once_more(suspects, step.attempts.last());
        let second = self.attempt(load, step)?;
        match &second {
            Judgement::Held => {
                self.note(format!(
                    "step {}: failed once and held when it was repeated, so it counts as held",
                    step.number
                ));
            }
            Judgement::Failed(suspects) => {
                self.progress.failed_again(suspects, step.attempts.last());
            }
            Judgement::Interrupted => {}
        }
        Ok(second)
    }

    /// One run.
    fn attempt(&mut self, load: u32, step: &mut Step) -> Result<Judgement> {
        self.settle(load);
        if self.interrupted.load(Ordering::Relaxed) {
            return Ok(Judgement::Interrupted);
        }
        let progress = &mut self.progress;
        let duration = self.command.run.duration;
        let oom_kills = cores::oom_kills().unwrap_or(0);
        let rejected = drained::rejected(&self.command.run);
        let ran = step::run(load, duration, &self.flags, &self.interrupted, |line| {
            progress.status(line);
        })?;
        progress.clear();
        self.last = Some(load);
        let mut report = match ran {
            Ran::Reported(report) => report,
            Ran::NotMade(code, complaint) => {
                let suspect = self.of_no_run(code, &complaint)?;
                step.attempts.push(Attempt::not_made(suspect.clone()));
                return Ok(Judgement::Failed(vec![suspect]));
            }
            Ran::Killed(signal) => {
                let more = cores::oom_kills().unwrap_or(0).saturating_sub(oom_kills);
                let suspect = step::named_by_signal(signal, more);
                step.attempts.push(Attempt::not_made(suspect.clone()));
                return Ok(Judgement::Failed(vec![suspect]));
            }
        };
        if let Some(rejected) = drained::rejected_since(&self.command.run, rejected) {
            report["server"]["counters"]["rejected"] = rejected;
        }
        let facts = Facts(&report);
        let judgement = match facts.verdict() {
            "interrupted" => Judgement::Interrupted,
            "passed" => {
                self.measured.learn(facts);
                self.progress.held(facts);
                Judgement::Held
            }
            _ => Judgement::Failed(limiter::suspects(&report)),
        };
        let suspects = match &judgement {
            Judgement::Failed(suspects) => suspects.clone(),
            _ => Vec::new(),
        };
        step.attempts.push(Attempt::new(*report, suspects));
        Ok(judgement)
    }

    /// What a run that could not be made ran into. Before anything has held it is the command line.
    fn of_no_run(&self, code: Option<i32>, complaint: &[String]) -> Result<Suspect> {
        if let Some(suspect) = step::named_by_complaint(complaint) {
            return Ok(suspect);
        }
        let complaint: Vec<&str> =
            complaint.iter().map(|line| step::without_program(line)).collect();
        let complaint = complaint.join("; ");
        if self.search.capacity().is_none() {
            bail!("the first run could not be made: {complaint}");
        }
        let code = code.map_or("no code".to_owned(), |code| format!("code {code}"));
        Ok(Suspect::certain(
            limiter::Limiter::Other,
            format!("the run could not be made ({code}): {complaint}"),
        ))
    }

    fn settle(&mut self, load: u32) {
        // Nothing has to settle before the first.
        let Some(last) = self.last else { return };
        let progress = &mut self.progress;
        let settle = self.command.settle;
        let missing = self.drained.wait(settle, load.max(last), &self.interrupted, |line| {
            progress.status(line);
        });
        self.progress.clear();
        if let Some(missing) = missing {
            self.note(format!("went on although {missing}"));
        }
    }
}
