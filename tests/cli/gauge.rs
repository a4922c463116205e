//! The state of a GPU in a report of `picie bench`, as the stand-in for the driver's management
//! library has it.

use serde_json::{Value, json};

use super::{Place, holds};
use crate::util::softgpu;

const TINY: &str = "bench --recipe mdc --images 2 --size 32 --stored 32 --batch 2 --batch-cluster 2 --clusters 3 --epochs 1 --warm-up 0 --autotune off --device cuda";

/// The report with this environment; none where there is no software GPU.
fn report(place: &Place, env: &str) -> Option<Value> {
    if softgpu::has_gpu() {
        return None;
    }
    let ran = place.gpu(env, &format!("{TINY} --json"))?.succeeds();
    std::fs::write(place.join("a.json"), &ran.out).unwrap();
    Some(serde_json::from_str(&ran.out).unwrap())
}

#[test]
fn throttled_samples_are_marked() {
    let place = Place::new();
    // The power cap, and clocks that somebody set, which hold nothing down.
    let Some(told) = report(&place, "SOFTNVML_REASONS=0x6") else { return };
    let want = json!([{
        "sm_mhz": 1755, "memory_mhz": 3201, "watts": 500.0, "limit_watts": 700.0, "celsius": 61,
        "throttled": ["power cap"], "others_percent": null
    }]);
    assert_eq!(told["conditions"], want);
    let epoch = told["phases"].as_array().unwrap().last().unwrap();
    let number = |name: &str| epoch[name].as_f64().unwrap();
    let joules = number("joules_per_image") * number("images_per_s");
    assert!((joules - 500.0).abs() <= 0.01, "{epoch}");
    // Lines are broken where a terminal ends.
    let text = place.picie("bench --from a.json").succeeds().out;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    holds(
        &text,
        &["1755 MHz, 500 W of 700 W, 61 °C", "1 of 1 epochs are marked (throttled: power cap)"],
    );

    report(&place, "");
    holds(&place.picie("bench --from a.json").succeeds().out, &["never throttled"]);
    std::fs::rename(place.join("a.json"), place.join("old.json")).unwrap();
    report(&place, "SOFTNVML_LIMIT=500000");
    let refused = place.picie("bench --from a.json --against old.json").fails();
    holds(&refused, &["power limit 700 W, now 500 W"]);
}

#[test]
fn an_old_or_absent_library_leaves_gaps() {
    let place = Place::new();
    let Some(told) = report(&place, "SOFTNVML_FAILS=1") else { return };
    assert_eq!(told["conditions"], json!([]), "a library without a driver");
    assert!(told["phases"][0]["joules_per_image"].is_null());
    assert!(told["device"]["cudnn"].is_u64(), "{}", told["device"]);

    let all = softgpu::folder(softgpu::Built::Plain).unwrap().display().to_string();
    let old = report(&place, &format!("LD_LIBRARY_PATH={all}/old:{all} SOFTNVML_REASONS=0x40"));
    let state = &old.unwrap()["conditions"][0];
    assert!(state["limit_watts"].is_null() && state["sm_mhz"] == 1755, "{state}");
    assert_eq!(state["throttled"], json!(["temperature, by hardware"]));

    let without = place.join("without");
    std::fs::create_dir(&without).unwrap();
    for name in ["libcuda.so", "libcudnn.so"] {
        std::os::unix::fs::symlink(format!("{all}/{name}"), without.join(name)).unwrap();
    }
    let absent = report(&place, &format!("LD_LIBRARY_PATH={}", without.display())).unwrap();
    assert_eq!(absent["conditions"], json!([]));
}
