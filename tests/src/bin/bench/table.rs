//! The rows of the result: a subject, our median, a peer's median, the ratio.

use std::time::Duration;

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
