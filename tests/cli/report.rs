//! The report of a run, opened in a browser if there is one, and its event files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Place, TINY, holds, scenes, trained};
use picie::report::events::masked;

fn rows(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn report(run: &Path) -> String {
    std::fs::read_to_string(run.join("report.html")).unwrap()
}

#[test]
fn a_finished_run_has_a_report_with_its_numbers() {
    let html = report(trained());
    let row = &rows(trained())[1];
    let miou = format!("<b>{:.2} %</b><span>mIoU</span>", row["miou"].as_f64().unwrap());
    holds(
        &html,
        &[
            "finished · recipe demo",
            &miou,
            "mIoU, epoch 0: ",
            "<h2>Confusion</h2>",
            "<h2>Classes</h2>",
            "picie train --size 32",
            "<dt>augment.flip_p</dt>",
            "<dt>engine.name</dt>",
            "scenes-256-64-1</dd>",
            env!("CARGO_PKG_VERSION"),
        ],
    );
    // Three pictures of each validation image.
    assert_eq!(html.matches("data:image/png;base64,").count(), 9);
    // Resumed at its end it is written again, with the command that began it.
    let place = Place::new();
    for file in super::files(trained()) {
        let to = place.join("run").join(&file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(trained().join(&file), to).unwrap();
    }
    std::fs::remove_file(place.join("run/report.html")).unwrap();
    place.picie("train --run run --resume").succeeds();
    let again = report(&place.join("run"));
    holds(&again, &["finished", &miou, "picie train --size 32"]);
    assert_eq!(again.matches("data:image/png;base64,").count(), 9);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stopped_run_has_one_too_and_one_without_labels() {
    let place = Place::new();
    let words = format!("train --recipe demo --data {} --run run {TINY}", scenes().display());
    let mut running = place.start(&words.replace("--epochs 2", "--epochs 99"), 1);
    running.wait_for("epoch 1 of 99");
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
    let html = report(&place.join("run"));
    holds(&html, &["stopped: everything so far is saved", "mIoU, epoch 1: ", "<h2>Pictures</h2>"]);
    // Resumed, and stopped before an epoch has ended: there is nothing new to show.
    let mut running = place.start("train --run run --resume", 1);
    running.wait_for("k-means");
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
    assert_eq!(report(&place.join("run")), html);
    let tiny = TINY.replace("--epochs 2", "--epochs 1");
    let data = scenes().join("images/train2017");
    let words = format!("train --recipe demo --data {} --run plain {tiny}", data.display());
    place.picie(&words).succeeds();
    let html = report(&place.join("plain"));
    holds(&html, &["<h2>Pictures</h2>", "cluster ", "none: no labels"]);
    assert!(!html.contains("<h2>Confusion</h2>") && !html.contains(">mIoU<"));
}

/// The fields of a protobuf message by number: varints and fixed numbers as their bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let len = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, bytes[..len].to_vec()));
        bytes = &bytes[len..];
    }
    found
}

/// The records of an event file, whose checksums must be right.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at(8);
        assert_eq!(number(&rest[..4]), masked(length));
        let (data, rest) =
            rest[4..].split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(number(&rest[..4]), masked(data));
        found.push(data.to_vec());
        bytes = &rest[4..];
    }
    found
}

#[test]
fn event_files_hold_the_scalars_of_each_epoch() {
    let place = Place::new();
    let words = format!("train --recipe demo --data {} --run run {TINY}", scenes().display());
    place.picie(&(words + " --tensorboard")).succeeds();
    let files = super::files(&place.join("run/tensorboard"));
    assert!(files.len() == 1 && files[0].to_string_lossy().contains("tfevents"), "{files:?}");
    let bytes = std::fs::read(place.join("run/tensorboard").join(&files[0])).unwrap();
    let records = records(&bytes);
    let of = |record: &[u8], number: u64| {
        fields(record).into_iter().filter(|f| f.0 == number).map(|f| f.1).collect::<Vec<_>>()
    };
    assert_eq!(of(&records[0], 3), [b"brain.Event:2"]);
    let rows = rows(&place.join("run"));
    assert_eq!(records.len(), 1 + rows.len());
    for (record, row) in records[1..].iter().zip(&rows) {
        assert_eq!(of(record, 2)[0], row["epoch"].as_u64().unwrap().to_le_bytes());
        let time = f64::from_le_bytes(of(record, 1)[0][..].try_into().unwrap());
        assert!(time > 1.7e9, "{time}");
        let scalars: BTreeMap<String, f32> = of(&of(record, 5)[0], 1)
            .iter()
            .map(|value| {
                let tag = String::from_utf8(of(value, 1)[0].clone()).unwrap();
                (tag, f32::from_le_bytes(of(value, 2)[0][..].try_into().unwrap()))
            })
            .collect();
        for (tag, want) in [
            ("loss/loss", &row["loss"]),
            ("loss/cross", &row["loss_cross"]),
            ("scores/mIoU", &row["miou"]),
            ("k-means/objective of view 2", &row["kmeans_objective"][1]),
            ("seconds/train", &row["train_s"]),
        ] {
            assert_eq!(scalars[tag], want.as_f64().unwrap() as f32, "{tag}");
        }
    }
}

/// A browser of the Chromium family: `$PICIE_BROWSER`, or the first on the path.
fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("PICIE_BROWSER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
    let mut found = std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .filter(|path| path.is_file());
    named.or_else(|| found.next())
}

/// Opens a page in a window, and returns the page as it then is, and what the console said.
fn open(browser: &Path, page: &Path, width: usize, more: &[&str]) -> (String, Vec<String>) {
    let home = tempfile::tempdir().unwrap();
    let out = Command::new(browser)
        // As root there is no sandbox; the page is our own.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("--window-size={width},900"))
        .args(more)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let console = text(&out.stderr);
    let console = console.lines().filter(|line| line.contains("CONSOLE")).map(String::from);
    (text(&out.stdout), console.collect())
}

/// Measures the page and leaves the numbers in place of it.
const MEASURE: &str = r#"<script>
const inside = (e) => {
  const [b, s] = [e.getBoundingClientRect(), e.ownerSVGElement.getBoundingClientRect()];
  return b.width > 0 && b.height > 0 && b.left >= s.left - 1 && b.right <= s.right + 1 && b.top >= s.top - 1 && b.bottom <= s.bottom + 1;
};
const all = (what) => [...document.querySelectorAll(what)];
const marks = all('svg.chart .mark, svg.chart .bar');
const measured = {
  wider: document.documentElement.scrollWidth - innerWidth, width: innerWidth, marks: marks.length,
  outside: marks.filter((e) => !inside(e)).length,
  filled: all('svg.chart path, svg.chart polyline').filter((e) => getComputedStyle(e).fill != 'none').length,
  letter: Math.min(...all('svg.chart text').map((e) => e.getBoundingClientRect().height)),
  pictures: all('img').filter((e) => e.complete && e.naturalWidth > 0).length,
  page: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
  mark: getComputedStyle(marks[0]).fill, fetched: performance.getEntriesByType('resource').length,
};
document.body.innerHTML = '<pre id="measured">' + JSON.stringify(measured) + '</pre>';
</script>"#;

#[test]
fn a_browser_shows_reports_on_narrow_and_wide_windows_light_and_dark() {
    let Some(browser) = browser() else {
        println!("skipped: no browser of the Chromium family on the path, nor in $PICIE_BROWSER");
        return;
    };
    let place = Place::new();
    let html = report(trained());
    let write = |name: &str, html: &str| {
        std::fs::write(place.join(name), html).unwrap();
        place.join(name)
    };
    // What a browser complains about is seen.
    let broken = write("broken.html", &html.replacen(" cx=\"", " cx=\"x", 1));
    let (_, console) = open(&browser, &broken, 1400, &["--dump-dom"]);
    assert_eq!(console.len(), 1, "{console:?}");

    place.picie("bench --model h200 --recipe picie --images 512 --report bench.html").succeeds();
    let bench = std::fs::read_to_string(place.join("bench.html")).unwrap();
    // Three losses, accuracy and mIoU with epoch 0, two objectives, imbalance; four phases.
    let marks = 3 * 2 + 3 + 3 + 2 * 2 + 2 + 4 * 2;
    for (html, marks, pictures) in
        [(&html, marks, 9), (&bench, bench.matches("<circle").count(), 0)]
    {
        let page = write("page.html", &html.replace("</body>", &format!("{MEASURE}</body>")));
        for (width, scheme) in [(400, 1), (400, 0), (1400, 1), (1400, 0)] {
            let scheme_flag = format!("--blink-settings=preferredColorScheme={scheme}");
            let (dom, console) = open(&browser, &page, width, &["--dump-dom", &scheme_flag]);
            assert!(console.is_empty(), "{console:?}");
            let m = dom.split("<pre id=\"measured\">").nth(1).expect("the page was measured");
            let m: Value = serde_json::from_str(m.split("</pre>").next().unwrap()).unwrap();
            let number = |name: &str| m[name].as_f64().unwrap();
            // Lines and axes enclose nothing that is painted.
            let seen = ["marks", "outside", "filled", "pictures", "fetched"].map(number);
            assert_eq!(seen, [marks as f64, 0.0, 0.0, pictures as f64, 0.0], "{m}");
            // Nothing is cut off at the right, and letters can be read.
            assert!(number("wider") <= 0.0 && number("letter") >= 9.0, "{m}");
            let light = |name: &str| {
                let channels = m[name].as_str().unwrap().split(|c: char| !c.is_ascii_digit());
                channels.filter_map(|c| c.parse::<u32>().ok()).take(3).sum::<u32>() / 3
            };
            let (page, ink, mark) = (light("page"), light("ink"), light("mark"));
            if scheme == 1 {
                assert!(page > 240 && ink < 60 && mark < 130, "{m}");
            } else {
                assert!(page < 40 && ink > 200 && mark > 130, "{m}");
            }
        }
    }
    let pdf = place.join("page.pdf");
    let page = write("print.html", &html);
    open(&browser, &page, 1400, &[&format!("--print-to-pdf={}", pdf.display())]);
    let printed = std::fs::read(pdf).unwrap();
    assert!(printed.starts_with(b"%PDF") && printed.len() > 10_000, "{}", printed.len());
}
