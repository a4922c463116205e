//! What the place cannot do: it is found before the first step, or done without.

use std::io::Write;

use super::claims::{header, sixteen_bits};
use super::{faulty, shim, tiny};
use crate::cli::{Place, files, holds, scenes, trained};

/// Whatever the limit on memory, a run is refused in one line before it has written anything, or
/// goes through to its report.
#[test]
fn a_limit_on_memory_is_found_before_the_first_step() {
    let words = format!(
        "train --recipe demo --run run --clusters 9 --epochs 1 --size 32 --stored 64 --batch 4 \
         --batch-cluster 4 --init-batches 1 --eval-size 32 --data {}",
        scenes().display()
    );
    let (mut refused, mut done) = (0, 0);
    for flag in ["-v", "-d"] {
        for kib in (200_000..=650_000).step_by(50_000) {
            let place = Place::new();
            let before = format!("export RAYON_NUM_THREADS=2; ulimit {flag} {kib}");
            let ran = place.shell(&before, &words);
            if ran.code == Some(0) {
                assert!(place.join("run/report.html").exists());
                done += 1;
            } else {
                let why = ran.fails();
                holds(&why, &[" MiB", " free"]);
                assert!(!why.contains(" 0 MiB are free"), "the limit was run into: {why}");
                assert!(!place.join("run").exists(), "{kib}");
                refused += 1;
            }
        }
    }
    assert!(refused > 4 && done > 2, "{refused} refused, {done} done");
}

#[test]
fn threads_that_cannot_be_started_are_done_without() {
    let Some(shim) = shim() else { return };
    // The first thread is the one that heeds signals. The fourth alone is missing in a pool of
    // four; none at all can be started.
    for (missing, threads) in [("4-4", "2"), ("1-999", "1")] {
        let place = Place::new();
        let env = [("RAYON_NUM_THREADS", "4"), ("FAULT_THREADS", missing)];
        let ran = faulty(&place, shim, &env, &tiny()).succeeds();
        let line = format!("warning: {threads} of 4 threads compute: the system starts no more (");
        holds(&ran.err, &[&line, "see ulimit -u and -v"]);
    }
}

/// What file systems of networks and of FUSE lack, by the numbers of Linux's errors: NOLCK, NOSYS,
/// OPNOTSUPP, INVAL and BADF of locks; INVAL, NOSYS and OPNOTSUPP of files' syncs, and anything but
/// an error of the disk of folders' syncs.
#[test]
fn a_file_system_without_locks_or_syncs_is_used_without() {
    let Some(shim) = shim() else { return };
    for (flock, fsync) in
        [("37", "0-22"), ("38", "38-1"), ("95", "95-13"), ("22", "22-9"), ("9", "0-0")]
    {
        let place = Place::new();
        let env = [("FAULT_FLOCK", flock), ("FAULT_FSYNC", fsync)];
        let ran = faulty(&place, shim, &env, &tiny()).succeeds();
        holds(&ran.err, &["run: this file system has no locks ("]);
    }
    for fsync in ["5-0", "0-5", "0-28"] {
        let ran = faulty(&Place::new(), shim, &[("FAULT_FSYNC", fsync)], &tiny());
        holds(&ran.fails(), &["run/run.json: "]);
    }
}

/// One photo that memory does not hold, and one whose header claims what its file does not, take no
/// other photo along.
#[test]
fn photos_that_memory_does_not_hold_are_left_out_alone() {
    let place = Place::new();
    for name in ["large.png", "header.png"] {
        header(&place.join(name), (16_000, 16_000), png::ColorType::Rgb);
    }
    // As many bytes as so many pixels may take, of nothing.
    let mut large = std::fs::OpenOptions::new().append(true).open(place.join("large.png")).unwrap();
    large.write_all(&[0; 40_000]).unwrap();
    std::fs::copy(scenes().join("images/val2017/000000000001.jpg"), place.join("a.jpg")).unwrap();
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!(
        "segment --checkpoint {} --out out header.png large.png a.jpg",
        checkpoint.display()
    );
    let ran = place.shell("ulimit -v 1500000", &words);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let said = [
        "picie: header.png: cut short: 16000 × 16000 pixels do not fit into its 59 bytes",
        "picie: large.png: to segment it takes 3418 MiB of memory, and ",
        "picie: 2 of 3 photos were left out",
    ];
    holds(&ran.err, &said);
    assert_eq!(files(&place.join("out")).len(), 4);
    // Memory that holds none of them is told of as a whole.
    let none = place.shell("ulimit -v 1500000", &words.replace(" a.jpg", ""));
    assert_eq!(none.code, Some(1), "{none:#?}");
    holds(none.err.lines().last().unwrap(), &["picie: the plan wants ", " MiB are free"]);
}

/// Eight photos of 30 megapixels, 16 bits a colour, on two threads: one at a time.
#[test]
fn photos_that_memory_holds_one_at_a_time_are_read_so() {
    let place = Place::new();
    std::fs::create_dir(place.join("photos")).unwrap();
    let photo = place.join("photos/0.png");
    sixteen_bits(&photo, (6000, 5000));
    (1..8).for_each(|i| std::fs::hard_link(&photo, place.join(format!("photos/{i}.png"))).unwrap());
    let words = "train --data photos --recipe picie --levels 2 --weights none --size 32 --stored 64 \
                 --batch 4 --clusters 2 --no-cache --plan";
    let ran = place.shell("export RAYON_NUM_THREADS=4; ulimit -v 900000", words).succeeds();
    assert!(!ran.err.contains("left out"), "{ran:#?}");
}

/// A small file that unpacks to a gigabyte.
#[test]
fn weights_that_memory_does_not_hold_are_refused() {
    let place = Place::new();
    let file = std::fs::File::create(place.join("bomb.pth")).unwrap();
    let mut bomb = zip::ZipWriter::new(file);
    let options = zip::write::SimpleFileOptions::default();
    bomb.start_file("a/data.pkl", options).unwrap();
    bomb.write_all(PICKLE).unwrap();
    bomb.start_file("a/data/0", options.compression_level(Some(1))).unwrap();
    (0..1024).for_each(|_| bomb.write_all(&[0; 1 << 20]).unwrap());
    bomb.finish().unwrap();
    assert!(place.join("bomb.pth").metadata().unwrap().len() < 8 << 20);
    let words = format!("{} --weights bomb.pth", tiny().replace(" --weights none", ""));
    let why = place.shell("ulimit -v 900000", &words).fails();
    holds(&why, &["bomb.pth: unpacked, it takes more than the ", " MiB that may be used"]);
}

/// {"a": a tensor of 2²⁸ floats}, in protocol 2.
const PICKLE: &[u8] = b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n\
    FloatStorage\nU\x010U\x03cpuJ\0\0\0\x10tQK\0J\0\0\0\x10\x85K\x01\x85\x89}tRs.";

/// Of a full disk and of `ulimit -f` less is left than a checkpoint takes.
#[test]
fn a_checkpoint_that_has_no_room_is_found_before_the_first_step() {
    let place = Place::new();
    let short = place.shell("ulimit -f 4000", &tiny()).fails();
    holds(&short, &["run: a checkpoint takes 9 MiB, and files may have ", "ulimit -f"]);
    assert!(!place.join("run").exists());
    // What needs no checkpoint fails at its write, and is not killed by the signal of the limit.
    let checkpoint = trained().join("epoch-02.safetensors");
    let scene = scenes().join("images/val2017/000000000001.jpg");
    let words =
        format!("segment --checkpoint {} --out out {}", checkpoint.display(), scene.display());
    assert_eq!(place.shell("ulimit -f 1", &words).code, Some(1));
}
