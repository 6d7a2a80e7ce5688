//! The rows of the result: a subject, our median, a peer's median, the ratio.

use std::time::Duration;

/// Marks a row among other lines.
const ROW: &str = "@row\t";

/// What was measured, in the order it was measured.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// No rows yet.
    pub(crate) fn new() -> Self {
        Table::default()
    }

    /// Adds a row and prints that it is there. The lists need not be of one length.
    pub(crate) fn add(&mut self, what: &str, peer: &str, mut ours: Vec<Duration>, mut theirs: Vec<Duration>) {
        eprintln!("measured: {what} beside {peer}");
        let (mine, other) = (median(&mut ours), median(&mut theirs));
        self.rows.push([
            what.to_owned(),
            format!("{} (n={})", show(mine), ours.len()),
            peer.to_owned(),
            format!("{} (n={})", show(other), theirs.len()),
            format!("{:.1}x", other.as_secs_f64() / mine.as_secs_f64()),
        ]);
    }

    /// Adds a row about memory in KiB; prints as the times do.
    pub(crate) fn add_memory(&mut self, what: &str, peer: &str, mut ours: Vec<u64>, mut theirs: Vec<u64>) {
        ours.sort_unstable();
        theirs.sort_unstable();
        let median = |values: &[u64]| values.get(values.len() / 2).copied().unwrap_or_default();
        let (mine, other) = (median(&ours), median(&theirs));
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        self.rows.push([
            what.to_owned(),
            format!("{} (n={})", mib(mine), ours.len()),
            peer.to_owned(),
            format!("{} (n={})", mib(other), theirs.len()),
            format!("{:.1}x", other as f64 / mine as f64),
        ]);
    }

    /// Adds a row about rates, in any unit: more is better.
    pub(crate) fn add_rate(&mut self, what: &str, peer: &str, unit: &str, mut ours: Vec<f64>, mut theirs: Vec<f64>) {
        eprintln!("measured: {what} beside {peer}");
        ours.sort_by(f64::total_cmp);
        theirs.sort_by(f64::total_cmp);
        let median = |values: &[f64]| values.get(values.len() / 2).copied().unwrap_or_default();
        let (mine, other) = (median(&ours), median(&theirs));
        self.rows.push([
            what.to_owned(),
            format!("{mine:.2} {unit} (n={})", ours.len()),
            peer.to_owned(),
            format!("{other:.2} {unit} (n={})", theirs.len()),
            format!("{:.2}x", mine / other),
        ]);
    }

    /// Adds a row that is about us alone.
    pub(crate) fn fact(&mut self, what: &str, figure: &str) {
        eprintln!("measured: {what}");
        self.rows.push([what, figure, "-", "-", "-"].map(str::to_owned));
    }

    /// A row as one line that [`Table::row_from`] reads: how rows leave the lab.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.rows.iter().map(|row| format!("{ROW}{}", row.join("\t")))
    }

    /// The row in a line of the lab's output, if there is one.
    pub(crate) fn row_from(line: &str) -> Option<[String; 5]> {
        let cells: Vec<String> = line.strip_prefix(ROW)?.trim_end().split('\t').map(str::to_owned).collect();
        cells.try_into().ok()
    }

    /// Adds a row that was measured elsewhere.
    pub(crate) fn add_row(&mut self, row: [String; 5]) {
        self.rows.push(row);
    }

    /// The table as text, columns aligned.
    pub(crate) fn print(&self) {
        let head = ["what (median)", "netd", "peer", "peer's time", "netd is faster by"].map(str::to_owned);
        let widths: Vec<usize> = (0..head.len())
            .map(|i| self.rows.iter().chain([&head]).map(|row| row[i].chars().count()).max().unwrap_or(0))
            .collect();
        for row in [&head].into_iter().chain(&self.rows) {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn show(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms >= 100.0 { format!("{ms:.0} ms") } else { format!("{ms:.2} ms") }
}
