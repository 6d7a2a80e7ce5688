//! The report as text, in virt-host-validate's line format, and for programs. Pure.

use serde_json::{Value, json};

use super::{Finding, Verdict, has_failure};

/// One line per finding: `   NET: Checking TITLE : VERDICT (why; run: command)`, the title padded to 60 columns as
/// virt-host-validate does, the verdict coloured as it does.
pub(crate) fn text(findings: &[Finding], coloured: bool) -> String {
    let line = |finding: &Finding| {
        line(&finding.title, finding.verdict, finding.says.as_deref(), finding.mend.as_deref(), coloured)
    };
    findings.iter().map(line).collect()
}

/// One line of the report.
pub(crate) fn line(title: &str, verdict: Verdict, says: Option<&str>, mend: Option<&str>, coloured: bool) -> String {
    let (word, colour) = match verdict {
        Verdict::Pass => ("PASS", 32),
        Verdict::Warn => ("WARN", 33),
        Verdict::Fail => ("FAIL", 31),
    };
    let verdict = if coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
    let why = match (says, mend) {
        (Some(says), Some(mend)) => format!(" ({says}; run: {mend})"),
        (Some(says), None) => format!(" ({says})"),
        (None, Some(mend)) => format!(" (run: {mend})"),
        (None, None) => String::new(),
    };
    format!("{:>6}: Checking {:<60}: {verdict}{}\n", "NET", one_line(title), one_line(&why))
}

/// Names of programs, tables and chains are anybody's to choose: no control character reaches the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `{"ok":…,"checks":[{"check","title","verdict","says","mend"}…]}`; `ok` is false if anything failed.
pub(crate) fn json(findings: &[Finding]) -> Value {
    let checks: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let verdict = match finding.verdict {
                Verdict::Pass => "pass",
                Verdict::Warn => "warn",
                Verdict::Fail => "fail",
            };
            json!({
                "check": finding.check,
                "title": finding.title,
                "verdict": verdict,
                "says": finding.says,
                "mend": finding.mend,
            })
        })
        .collect();
    json!({ "ok": !has_failure(findings), "checks": checks })
}
