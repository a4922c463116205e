//! The counts of `trace.cpp`, by kernel and line of source.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::util::softgpu;

/// The type of activations of a process of calls.
pub const DTYPE: &str = "PICIE_TRAFFIC_DTYPE";

/// Sums over requests: lanes that were active; sectors or wavefronts; as few as would do.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    pub requests: f64,
    pub lanes: f64,
    pub parts: f64,
    pub ideal: f64,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let each = |of: f64| of / self.requests;
        let (parts, ideal, lanes) = (each(self.parts), each(self.ideal), each(self.lanes));
        write!(f, "{parts:.2} a request (ideal {ideal:.2}), {lanes:.1} lanes")
    }
}

/// An access of the source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// `FILE:LINE`, and behind each < who called it.
    at: String,
    access: String,
    pub shared: bool,
}

/// All launches of a kernel.
#[derive(Default)]
pub struct Kernel {
    /// Bytes of sectors that a launch touched, each counted once.
    pub once: f64,
    /// Bytes that the doors of the ops that launched it state.
    pub stated: f64,
    sites: BTreeMap<Site, Sum>,
}

impl Kernel {
    pub fn sum(&self, of: impl Fn(&Site) -> bool) -> Sum {
        let mut sum = Sum::default();
        self.sites.iter().filter(|(site, _)| of(site)).for_each(|(_, more)| add(&mut sum, more));
        sum
    }

    /// Each access with its line.
    pub fn by_line(&self, of: impl Fn(&Site) -> bool) -> Vec<(String, Sum)> {
        let sites = self.sites.iter().filter(|(site, _)| of(site));
        sites.map(|(site, &sum)| (format!("{} {}", site.at, site.access), sum)).collect()
    }
}

fn add(sum: &mut Sum, more: &Sum) {
    sum.requests += more.requests;
    sum.lanes += more.lanes;
    sum.parts += more.parts;
    sum.ideal += more.ideal;
}

/// Kernels by name and type. None where there is no traced software GPU.
pub fn measured() -> Option<BTreeMap<String, Kernel>> {
    // A process that was given a software GPU has not this one.
    if softgpu::has_gpu() || std::env::var_os("PICIE_SOFTGPU").is_some() {
        return None;
    }
    let folder = softgpu::folder(softgpu::Built::Traced)?;
    let start = |dtype: &&str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "softgpu::traffic::calls", "--ignored", "--nocapture"]);
        command.env("PICIE_SOFTGPU", folder).env("SOFTGPU_ORDERS", "1").env(DTYPE, dtype);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = ["f32", "bf16"].iter().map(start).collect();
    let mut text = String::new();
    for child in children {
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let more = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}{more}");
        text += &said;
    }
    Some(parse(&text, &folder.join("libcuda.so")))
}

fn parse(text: &str, library: &Path) -> BTreeMap<String, Kernel> {
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let places = rows.iter().filter(|row| row.first() == Some(&"site")).map(|row| row[1]);
    let lines = lines(library, places.collect());
    let number = |word: &str| -> f64 { word.parse().unwrap() };
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    let (mut stated, mut name) = (0.0, String::new());
    for row in &rows {
        match row[..] {
            ["stated", bytes] => stated = number(bytes),
            ["kernel", kernel, _launches, once] => {
                let (kernel, dtype) = kernel.rsplit_once('_').unwrap();
                name = format!("{kernel} {dtype}");
                let kernel = kernels.entry(name.clone()).or_default();
                kernel.once += number(once);
                kernel.stated += stated;
            }
            ["site", place, space, how, size, requests, lanes, parts, ideal] => {
                let site = Site {
                    at: lines.get(place).cloned().unwrap_or_else(|| place.into()),
                    access: format!("{how} {size} B"),
                    shared: space == "shared",
                };
                let [requests, lanes, parts, ideal] = [requests, lanes, parts, ideal].map(number);
                let sum = kernels.get_mut(&name).unwrap().sites.entry(site).or_default();
                add(sum, &Sum { requests, lanes, parts, ideal });
            }
            _ => {}
        }
    }
    kernels
}

/// Lines of source by place, by addr2line, which comes with g++; empty without it.
fn lines(library: &Path, places: BTreeSet<&str>) -> HashMap<String, String> {
    let mut command = Command::new("addr2line");
    command.args(["-a", "-i", "-e"]).arg(library);
    let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        return HashMap::new();
    };
    let (mut input, asked) = (child.stdin.take().unwrap(), Vec::from_iter(places).join("\n"));
    let writer = std::thread::spawn(move || input.write_all(asked.as_bytes()));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let mut lines: HashMap<String, String> = HashMap::new();
    let mut at = String::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        if let Some(place) = line.strip_prefix("0x") {
            at = place.trim_start_matches('0').into();
        } else if let Some(line) = of_kernels(line) {
            // Of a chain of callers the first three.
            let chain = lines.entry(at.clone()).or_default();
            match chain.split(" < ").count() {
                _ if chain.is_empty() => *chain = line,
                1 | 2 => *chain = format!("{chain} < {line}"),
                _ => {}
            }
        }
    }
    lines
}

/// `FILE:LINE` of a line of addr2line, if the file is one of kernels.
fn of_kernels(line: &str) -> Option<String> {
    // Without "(discriminator 1)".
    let (_, name) = line.split(' ').next()?.rsplit_once('/')?;
    let (file, number) = name.split_once(':')?;
    let file = match file.strip_suffix(".cpp") {
        // NOTE: g++ counts some lines as those of the text that includes the file: STEM-HASH.cpp.
        Some(text) => format!("{}.cu", text.rsplit_once('-')?.0),
        None => file.into(),
    };
    file.contains(".cu").then(|| format!("{file}:{number}"))
}
