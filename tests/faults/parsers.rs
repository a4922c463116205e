//! Small sound files, changed at random: whatever reads them ends in an error or a value, within a
//! second, and within memory that follows from the file's size. A failure is kept in
//! `tests/faults/seeds.txt`, and tried first from then on.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;

use picie::data::{self, Classes, decode, large};
use picie::device::Dtype;
use picie::device::cuda::EngineTimes;
use picie::eval::epochs;
use picie::net::weights;
use picie::report::bench::{BenchReport, Compared};
use picie::train::{RunFolder, Trained};

use super::tiny;
use crate::cli::{Place, trained};
use crate::util::files::gradient;
use crate::util::{peak, root};

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    /// Another byte.
    Set(Index, u8),
    /// Some bytes replaced by a fragment, which makes it longer or shorter.
    Splice(Index, usize, &'static [u8]),
    /// The end is missing.
    Cut(Index),
}

/// What is put into files: numbers that are too large, none, or not finite, and what opens or ends
/// something.
const FRAGMENTS: [&[u8]; 12] = [
    b"",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"4294967295",
    b"null",
    b"[[[[",
    b"{\"a\":",
    b"\"",
    b"\n",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
];

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (any::<Index>(), 0..9usize, prop::sample::select(&FRAGMENTS[..]))
            .prop_map(|(at, bytes, by)| Change::Splice(at, bytes, by)),
        1 => any::<Index>().prop_map(Change::Cut),
    ];
    prop::collection::vec(change, 1..6)
}

/// `bytes` with the changes, all within its first `head` bytes.
fn changed(bytes: &[u8], head: usize, changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        let within = head.min(bytes.len());
        if within == 0 {
            break;
        }
        match change {
            Change::Set(at, byte) => bytes[at.index(within)] = *byte,
            Change::Cut(at) => bytes.truncate(at.index(within)),
            Change::Splice(at, count, by) => {
                let at = at.index(within);
                bytes.splice(at..(at + count).min(within), by.iter().copied());
            }
        }
    }
    bytes
}

/// A kind of file.
struct Kind {
    /// The name of the file in its folder.
    name: &'static str,
    sound: Vec<u8>,
    /// Changes fall into so many bytes from the beginning.
    head: usize,
    /// Bytes of memory for each of the file that reading it may take, beside a mebibyte.
    times: usize,
    read: fn(&Path),
    /// Makes checksums right again, which would hide from their reader what was changed.
    mend: fn(&mut [u8]),
}

impl Kind {
    fn new(name: &'static str, sound: Vec<u8>, times: usize, read: fn(&Path)) -> Self {
        Kind { name, head: sound.len(), sound, times, read, mend: |_| () }
    }

    /// A PNG. A byte of it stands for so many pixels at most, in the widest elements and as RGB.
    fn png(name: &'static str, sound: Vec<u8>, read: fn(&Path)) -> Self {
        Kind { mend: checksums, ..Kind::new(name, sound, PIXELS, read) }
    }

    /// Reads the file in `dir` with the changes, and fails if that takes too long or too much.
    fn holds(&self, dir: &Path, changes: &[Change]) {
        let mut bytes = changed(&self.sound, self.head, changes);
        (self.mend)(&mut bytes);
        let path = dir.join(self.name);
        std::fs::write(&path, &bytes).unwrap();
        let begun = Instant::now();
        let ((), most) = peak(|| (self.read)(&path));
        let (took, bound) = (begun.elapsed(), self.times * bytes.len() + (1 << 20));
        assert!(most <= bound, "{}: {most} bytes for a file of {}", self.name, bytes.len());
        assert!(took < Duration::from_secs(1), "{}: {took:?}", self.name);
    }
}

/// Bytes of memory for each byte of a PNG, and of a JPEG.
const PIXELS: usize = large::PNG as usize * 16;
const JPEG: usize = large::JPEG as usize * 16;

/// Writes the checksum of each chunk of a PNG.
fn checksums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(end) = (at + 8).checked_add(length).filter(|end| end + 4 <= png.len()) else {
            return;
        };
        let sum = crc(&png[at + 4..end]);
        png[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

/// The checksum of PNG and zip.
fn crc(bytes: &[u8]) -> u32 {
    let bit = |sum: u32, _| sum >> 1 ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 };
    let byte = |sum: u32, &byte: &u8| (0..8).fold(sum ^ u32::from(byte), bit);
    !bytes.iter().fold(!0, byte)
}

/// Writes the checksum of each entry of a zip archive that is stored as it is into the archive's
/// list of entries, which is what readers believe.
fn entries(zip: &mut [u8]) {
    let number = |zip: &[u8], at: usize, bytes: usize| -> Option<usize> {
        let bytes = zip.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    };
    let entry = |zip: &[u8], at: usize| -> Option<u32> {
        let (size, local) = (number(zip, at + 20, 4)?, number(zip, at + 42, 4)?);
        let start = local + 30 + number(zip, local + 26, 2)? + number(zip, local + 28, 2)?;
        let stored = number(zip, at + 10, 2)? == 0;
        zip.get(start..start + size).filter(|_| stored).map(crc)
    };
    for at in 0..zip.len() {
        if zip[at..].starts_with(b"PK\x01\x02")
            && let Some(sum) = entry(zip, at)
        {
            zip[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

fn image(name: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    gradient(40, 30).save(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// A palette PNG of 4 bits, and one of colours.
fn label_maps() -> [Vec<u8>; 2] {
    let dir = tempfile::tempdir().unwrap();
    let [palette, colours] = ["palette.png", "colours.png"].map(|name| dir.path().join(name));
    let mut encoder = png::Encoder::new(std::fs::File::create(&palette).unwrap(), 8, 6);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Four);
    encoder.set_palette((0..48).collect::<Vec<u8>>());
    encoder.write_header().unwrap().write_image_data(&[0x12; 24]).unwrap();
    image::RgbImage::from_fn(8, 6, |x, _| image::Rgb([[255, 0, 0], [0, 255, 0]][x as usize % 2]))
        .save(&colours)
        .unwrap();
    [palette, colours].map(|path| std::fs::read(path).unwrap())
}

/// Every kind of file that picie reads, but pictures of kinds whose compression knows no bound.
fn kinds() -> Vec<Kind> {
    let golden =
        |name: &str| std::fs::read(root().join("tests/golden/weights").join(name)).unwrap();
    let weights: fn(&Path) = |path| drop(weights::read(path));
    let run = |name: &str| std::fs::read(trained().join(name)).unwrap();
    let place = Place::new();
    place.picie(&tiny()).succeeds();
    let checkpoint = std::fs::read(place.join("run/epoch-01.safetensors")).unwrap();
    let bench =
        place.picie("bench --images 4 --size 32 --batch 4 --batch-cluster 4 --epochs 1 --json");
    let [palette, colours] = label_maps();
    vec![
        Kind { mend: entries, ..Kind::new("zip.pth", golden("zip.pth"), 64, weights) },
        Kind::new("deflated.pth", golden("deflated.pth"), 2 * 1032, weights),
        Kind::new("legacy.pth", golden("legacy.pth"), 64, weights),
        Kind::new("python2.pth", golden("python2.pth"), 64, weights),
        Kind::new("python.safetensors", golden("python.safetensors"), 64, weights),
        // The header, and what it says of the run.
        Kind {
            head: 24_000,
            ..Kind::new("epoch-01.safetensors", checkpoint, 8, |path| drop(Trained::read(path)))
        },
        Kind::new("run.json", run("run.json"), 64, |path| {
            drop(RunFolder::open(path.parent().unwrap()).unwrap().read_settings())
        }),
        Kind::new("metrics.jsonl", run("metrics.jsonl"), 64, |path| {
            drop(epochs::read(path));
            drop(epochs::truncate_from(path, 1));
        }),
        Kind::new(
            "Coco164kFull_Stuff_Coarse_7.txt",
            b"000001\n000002\n000003\n".to_vec(),
            256,
            list,
        ),
        Kind::new("bench.json", bench.succeeds().out.into_bytes(), 64, report),
        Kind::new("engines.json", ENGINES.to_vec(), 64, |path| {
            drop(EngineTimes::read(path, "", Dtype::Bf16))
        }),
        Kind::png("palette.png", palette, |path| drop(decode::label(path))),
        Kind::png("colours.png", colours, |path| {
            drop(decode::coloured_label(path, &[([255, 0, 0], 0), ([0, 255, 0], 1)], false))
        }),
        Kind::png("image.png", image("image.png"), |path| drop(decode::rgb(path, true))),
        Kind::new("image.jpg", image("image.jpg"), JPEG, |path| drop(decode::rgb(path, true))),
    ]
}

/// A file of chosen engines of cuDNN.
const ENGINES: &[u8] =
    br#"{"cuDNN 92801, NVIDIA H200: forward of 8 x 3 in bf16": {"tag": "eng4_k24=16",
 "microseconds": 12.5, "workspace": 4096, "bad": ["eng1"], "date": "2026-01-01", "plan": null}}"#;

/// The list in its data set: it names files, and one of them may be anything.
fn list(path: &Path) {
    let root = path.parent().unwrap().join("set");
    for folder in ["images/train2017", "curated/train2017"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy(path, root.join("curated/train2017").join(path.file_name().unwrap())).unwrap();
    drop(data::open(&root, None, "train", Classes::default(), &|_, _| ()));
}

/// Reads a report of a measurement, and compares it with itself.
fn report(path: &Path) {
    let Ok(report) = serde_json::from_slice::<BenchReport>(&std::fs::read(path).unwrap()) else {
        return;
    };
    drop(report.csv());
    for phase in &report.phases {
        Compared::new(&phase.name, "s", 1.0, &phase.samples_s, &phase.samples_s);
    }
}

/// A change inside of an entry reaches the pickle machine.
#[test]
fn checksums_of_archives_are_mended() {
    let sound = std::fs::read(root().join("tests/golden/weights/zip.pth")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let says = |zip: &[u8]| {
        let path = dir.path().join("zip.pth");
        std::fs::write(&path, zip).unwrap();
        weights::read(&path).map_or_else(|e| e.to_string(), |_| "read".into())
    };
    let mut zip = sound.clone();
    let at = zip.windows(2).position(|w| w == [0x80, 2]).unwrap();
    zip[at + 2] = b'?';
    assert!(says(&zip).contains("checksum"), "{}", says(&zip));
    entries(&mut zip);
    assert!(says(&zip).contains("pickle"), "{}", says(&zip));
    let mut same = sound.clone();
    entries(&mut same);
    assert!(same == sound);
}

#[test]
fn changed_files_take_neither_time_nor_memory() {
    let (kinds, dir) = (kinds(), tempfile::tempdir().unwrap());
    for kind in &kinds {
        kind.holds(dir.path(), &[]);
    }
    let seeds = root().join("tests/faults/seeds.txt");
    let seeds = Box::leak(seeds.to_string_lossy().into_owned().into_boxed_str());
    let config = ProptestConfig {
        cases: 1500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
        ..ProptestConfig::default()
    };
    proptest!(config, |(kind in any::<Index>(), changes in changes())| {
        kinds[kind.index(kinds.len())].holds(dir.path(), &changes);
    });
}
