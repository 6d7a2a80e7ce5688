//! EDGE: tests of one file that this machine cannot run, run in the lab.
//!
//! A test file's first such test starts the lab once for the whole file; the file's own program runs in it again, one
//! test at a time, and each test here takes its result from what that printed. A test that failed there, or during which
//! the lab froze, is run again in a new lab, as is what had not had its turn; each such try is counted and printed, and a
//! test that fails in three labs is red.
//!
//! ```text
//!   cargo test ─► test a ─┐                        ┌─ test a … ok
//!                 test b ─┴─► OnceLock ─► lab ─►───┴─ test b … FAILED + its output
//! ```

use std::{
    any::type_name,
    collections::BTreeMap,
    env,
    io::Write,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::lab::{self, Job};

/// How often a test may fail in the lab. A lab at work loses guests of any monitor: of 48 stock guests on QEMU with KVM
/// two ended early in their boot and one hung. Each lost try is told.
const TRIES: u32 = 3;

/// How many labs one test file may use up, and for how long it may start new ones.
const LABS: usize = 8;
const STARTS: Duration = Duration::from_secs(30 * 60);

/// The end of all patience for one lab with all tests of a file.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a test's body here if this machine can, else with the whole file in the lab, once that is prepared; the closure
/// must stand in the test function itself. `why_not` is said when the lab is started. All tests of one file that come
/// here must ask for the same.
pub(crate) fn here_or_in_lab<F: FnOnce() -> Result<()>>(
    why_not: &str,
    can: impl FnOnce() -> Result<bool>,
    prepare: impl FnOnce() -> Result<()>,
    body: F,
) -> Result<()> {
    if lab::inside() || can()? {
        return body();
    }
    static RESULTS: OnceLock<Result<Results>> = OnceLock::new();
    let results = match RESULTS.get_or_init(|| prepare().and_then(|()| run_in_lab(why_not))) {
        Ok(results) => results,
        Err(error) => bail!("{error:#}"),
    };
    let name = test_name(type_name::<F>());
    match results.tests.get(name) {
        Some(true) => Ok(()),
        Some(false) => bail!("failed in the lab, {TRIES} times; the last:\n{}", results.output_of(name)),
        None => bail!("no result from the lab; its last lines:\n{}", results.tail()),
    }
}

/// `a_guest_boots` out of `guests::a_guest_boots::{{closure}}`.
fn test_name(closure: &str) -> &str {
    let path = closure.trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// What the file's tests printed in the lab.
#[derive(Debug, Default)]
struct Results {
    tests: BTreeMap<String, bool>,
    lines: Vec<String>,
}

impl Results {
    /// Takes in one line of libtest's output.
    fn line(&mut self, line: &str) {
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            match result.trim() {
                "ok" => drop(self.tests.insert(name.to_owned(), true)),
                "FAILED" => drop(self.tests.insert(name.to_owned(), false)),
                _ => {}
            }
        }
        self.lines.push(line.to_owned());
    }

    /// The last block that libtest printed for a failed test.
    fn output_of(&self, name: &str) -> String {
        let head = format!("---- {name} stdout ----");
        let last = self.lines.iter().rposition(|line| *line == head).unwrap_or(self.lines.len());
        let block = self.lines.iter().skip(last + 1);
        let block: Vec<&str> =
            block.take_while(|line| !line.starts_with("---- ") && *line != "failures:").map(String::as_str).collect();
        if block.is_empty() { self.tail() } else { block.join("\n") }
    }

    fn tail(&self) -> String {
        self.lines[self.lines.len().saturating_sub(40)..].join("\n")
    }
}

fn run_in_lab(why_not: &str) -> Result<Results> {
    let me = env::current_exe()?;
    let filters = filters(env::args().skip(1));
    let wanted = listed(&me, &filters)?;
    say(&format!("{why_not}: {} tests go to the lab", wanted.len()));
    let mut results = Results::default();
    let mut tries: BTreeMap<&String, u32> = BTreeMap::new();
    let begun = Instant::now();
    for _ in 0..LABS {
        let is_open =
            |name: &&String| results.tests.get(*name) != Some(&true) && tries.get(name).is_none_or(|n| *n < TRIES);
        let open: Vec<&String> = wanted.iter().filter(is_open).collect();
        if open.is_empty() || begun.elapsed() > STARTS {
            break;
        }
        results.tests.retain(|_, passed| *passed);
        let mut job = Job::new([me.as_os_str()]);
        job.command.extend(open.iter().map(|name| (*name).into()));
        job.command.extend(["--exact".into(), "--test-threads=1".into()]);
        job.timeout = LIMIT;
        let outcome = lab::start(&job, &mut |line| {
            if line.starts_with("test ") || line.starts_with("lab: ") {
                say(line);
            }
            results.line(line);
        })?;
        results.lines.push(format!("lab: {outcome}"));
        // They run one at a time and in this order: the first without a result is the one that was running.
        let running = open.iter().find(|name| !results.tests.contains_key(**name));
        let failed = open.iter().filter(|name| results.tests.get(**name) == Some(&false));
        for name in failed.chain(running) {
            let tried = tries.entry(name).or_default();
            *tried += 1;
            let output = results.output_of(name);
            output.lines().filter(|line| line.to_lowercase().starts_with("error:")).for_each(say);
            let next = if *tried < TRIES { "once more in a new lab" } else { "that was its last try: it is red" };
            say(&format!("lab: {name}: try {tried} of {TRIES} came to nothing ({outcome}); {next}"));
        }
    }
    Ok(results)
}

/// The tests of this file that pass the filters.
fn listed(me: &std::path::Path, filters: &[String]) -> Result<Vec<String>> {
    let output = Command::new(me).args(filters).args(["--list", "--format", "terse"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// The words on the command line that choose tests; how they are run and shown is decided here.
fn filters(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut chosen = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--skip" => chosen.extend([Some(word), words.next()].into_iter().flatten()),
            "--test-threads" | "--format" | "--color" | "--logfile" | "--shuffle-seed" => drop(words.next()),
            "--exact" | "--ignored" | "--include-ignored" => chosen.push(word),
            _ if word.starts_with("--skip=") || !word.starts_with('-') => chosen.push(word),
            _ => {}
        }
    }
    chosen
}

/// Straight to the terminal: libtest would keep it back until the test is over.
fn say(line: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_what_libtest_prints() {
        let mut results = Results::default();
        let text = "running 2 tests\ntest one ... ok\ntest two ... FAILED\n\nfailures:\n\n---- two stdout ----\n\
                    Error: no lease\nit said so\n\nfailures:\n    two\n";
        text.lines().for_each(|line| results.line(line));
        assert_eq!(results.tests.get("one"), Some(&true));
        assert_eq!(results.tests.get("two"), Some(&false));
        assert_eq!(results.tests.get("three"), None);
        assert_eq!(results.output_of("two").trim(), "Error: no lease\nit said so");
    }

    #[test]
    fn the_words_that_choose_tests_are_kept_and_no_others() {
        let words = ["boots", "--test-threads", "4", "--nocapture", "--skip", "slow", "--exact"];
        assert_eq!(filters(words.map(str::to_owned).into_iter()), ["boots", "--skip", "slow", "--exact"]);
    }

    #[test]
    fn a_test_is_known_by_the_closure_in_it() {
        assert_eq!(test_name("guests::a_guest_boots::{{closure}}"), "a_guest_boots");
        assert_eq!(test_name("guests::inner::a_guest_boots::{{closure}}"), "inner::a_guest_boots");
    }
}
