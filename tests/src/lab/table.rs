//! Runs cells, several laboratories at once, and prints what came out as a table.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::cells::{Cell, way_in_words};
use super::measured_call::{End, Measured};
use super::network::Network;
use super::servers::NetLab;
use super::{root, skip};

/// Laboratories at once: their calls mostly wait.
const LABORATORIES: usize = 4;
/// How long servers may hold what a call used.
const RELEASE: Duration = Duration::from_secs(15);
/// Other programs may run beside a test: only this many times a goal is a fault. The table says which goals were missed.
const PATIENCE: f64 = 10.0;

/// One cell after its runs.
pub struct Row {
    pub cell: Cell,
    pub runs: Vec<Result<Measured, String>>,
}

/// Runs every cell `times` times.
///
/// # Errors
///
/// Why there can be no network namespaces here.
pub fn run(cells: Vec<Cell>, times: usize) -> Result<Vec<Row>, String> {
    Network::build(cells.first().map(|cell| cell.plan.clone()).unwrap_or_default())?;
    let queue = Mutex::new(cells.into_iter().enumerate());
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..LABORATORIES {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no cell panics").next();
                    let Some((number, cell)) = next else { return };
                    let row = run_cell(cell, times);
                    println!("{}", line(&row));
                    rows.lock().expect("no cell panics").push((number, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no cell panics");
    rows.sort_by_key(|(number, _)| *number);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// A new laboratory for a cell, and after each run that failed: nothing of another run is left in it.
fn run_cell(cell: Cell, times: usize) -> Row {
    let mut lab = Err("not built yet".to_owned());
    let runs = (0..times).map(|number| {
        if lab.is_err() {
            lab = laboratory(&cell);
        }
        let built = lab.as_ref().map_err(Clone::clone)?;
        let run = one_run(built, &cell);
        if let Err(error) = &run {
            keep(built, &cell, number, error);
            lab = Err("the run before failed".to_owned());
        }
        run
    });
    let runs = runs.collect();
    Row { cell, runs }
}

fn laboratory(cell: &Cell) -> Result<NetLab, String> {
    let lab = NetLab::start(Network::build(cell.plan.clone())?, &cell.offer)?;
    for (router, kind) in &cell.nats {
        lab.network.set_nat(*router, *kind)?;
    }
    for router in &cell.gateways {
        lab.network.set_gateway(*router, true)?;
    }
    for (host, words) in &cell.lines {
        lab.network.set_delay(*host, &words.split_whitespace().collect::<Vec<_>>())?;
    }
    Ok(lab)
}

fn one_run(lab: &NetLab, cell: &Cell) -> Result<Measured, String> {
    let measured = lab.call(&cell.call)?;
    let told = |error: String| format!("{error}\n{}", events(&measured));
    cell.judge(&measured).map_err(told)?;
    if cell.loses() {
        // A phone asks three times to free an allocation; the server's own expiry does the rest.
        lab.wait_unregistered(RELEASE).map_err(told)?;
    } else {
        lab.wait_released(RELEASE).map_err(told)?;
    }
    late(cell, &measured).map_err(told)?;
    Ok(measured)
}

/// Whether a goal was missed by far.
fn late(cell: &Cell, measured: &Measured) -> Result<(), String> {
    let Some(goals) = cell.goals() else { return Ok(()) };
    for end in &measured.ends {
        let (first, last) = (end.first_rtp_ms.unwrap_or(f64::MAX), end.final_path_ms.unwrap_or(f64::MAX));
        if first > goals.first_ms * PATIENCE || last > goals.final_ms * PATIENCE {
            return Err(format!("first RTP after {first:.0} ms, final path after {last:.0} ms"));
        }
    }
    Ok(())
}

fn events(measured: &Measured) -> String {
    let lines = |end: &End| end.events.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    format!("caller:\n{}\ncallee:\n{}", lines(&measured.ends[0]), lines(&measured.ends[1]))
}

/// Leaves what there is to see of a failed run in `target/lab-failures`.
fn keep(lab: &NetLab, cell: &Cell, number: usize, error: &str) {
    let name: String = cell.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let folder = root().join(format!("target/lab-failures/{}-{name}-{number}", cell.group));
    if std::fs::create_dir_all(&folder).is_err() {
        return;
    }
    let _ = std::fs::write(folder.join("error.txt"), error);
    for entry in std::fs::read_dir(lab.network.folder()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log" || extension == "pcap") {
            let _ = std::fs::copy(&path, folder.join(entry.file_name()));
        }
    }
}

impl Row {
    fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.runs.iter().filter_map(|run| run.as_ref().ok())
    }

    /// The median over the runs of what `figure` says of an end.
    fn median(&self, side: usize, figure: impl Fn(&End) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.measured().filter_map(|measured| figure(&measured.ends[side])).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// What failed, each with the first line of its reason.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.runs.iter().filter_map(|run| run.as_ref().err());
        failed.map(|error| format!("{}: {}", self.cell.name, error.lines().next().unwrap_or_default())).collect()
    }

    /// Whether the medians reach the goals of this cell.
    pub fn reaches_goals(&self) -> bool {
        let Some(goals) = self.cell.goals() else { return true };
        (0..2).all(|side| {
            self.median(side, |end| end.first_rtp_ms).is_some_and(|ms| ms <= goals.first_ms)
                && self.median(side, |end| end.final_path_ms).is_some_and(|ms| ms <= goals.final_ms)
        })
    }
}

const HEAD: &str = "| | Cell | Passed | Path at the caller, at the callee | INVITE → first RTP, ms | → final path, ms | Lost | CPU, ms | RSS, MiB |
|---|---|---|---|---|---|---|---|---|";

/// One line of the table; a goal that was missed has a star.
fn line(row: &Row) -> String {
    let ways = row.measured().last().map(|measured| measured.ends.each_ref().map(way_in_words).join(", "));
    let both = |figure: &dyn Fn(&End) -> Option<f64>| {
        let text = |side| row.median(side, figure).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        format!("{}, {}", text(0), text(1))
    };
    let passed = row.measured().count();
    let star = if row.reaches_goals() { "" } else { " *" };
    format!(
        "| {} | {} | {passed}/{} | {} | {}{star} | {} | {} | {} | {} |",
        row.cell.group,
        row.cell.name,
        row.runs.len(),
        ways.unwrap_or_default(),
        both(&|end| end.first_rtp_ms),
        both(&|end| end.final_path_ms),
        both(&|end| Some(end.lost as f64)),
        both(&|end| Some(end.cpu_ms)),
        both(&|end| Some(end.rss_kib as f64 / 1024.0)),
    )
}

/// The whole table.
pub fn table(rows: &[Row]) -> String {
    rows.iter().fold(HEAD.to_owned(), |mut text, row| {
        let _ = write!(text, "\n{}", line(row));
        text
    })
}

/// Runs cells, prints their table, leaves it in a file, and says what failed.
///
/// # Panics
///
/// If a run of a cell failed.
pub fn check(test: &str, cells: Vec<Cell>, times: usize) {
    let rows = match run(cells, times) {
        Ok(rows) => rows,
        Err(reason) => return skip(test, &reason),
    };
    let text = table(&rows);
    println!("\n{text}\n\n* slower than its goal on this machine, with what else ran on it.");
    let _ = std::fs::write(root().join(format!("target/{test}.md")), &text);
    let failures: Vec<String> = rows.iter().flat_map(Row::failures).collect();
    assert!(
        failures.is_empty(),
        "{} runs failed (target/lab-failures has the details):\n{}",
        failures.len(),
        failures.join("\n")
    );
}
