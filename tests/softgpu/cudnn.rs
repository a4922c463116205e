//! The rules of the cuDNN stand-in: what its engines differ in, what is refused, and how.

use cudarc::driver::{result, sys};

use super::graph::status::{ALLOCATION, COMPILATION, EXECUTION, INTERNAL, LOADING, UNSUPPORTED};
use super::graph::{
    BF16, Conv, Cudnn, DATA, F32, FALLBACK, FORWARD, MODE_A, MODE_B, Memory, Set, WEIGHT,
};
use super::graph::{make, notes, refuse, said, tag};

#[test]
fn engines_sum_in_different_orders_and_those_noted_never_in_the_same() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let wgrad = Conv::new(WEIGHT, F32);
    let configs = dnn.configs(wgrad, MODE_A).unwrap();
    assert_eq!(
        configs.iter().map(|&c| tag(c)).collect::<Vec<_>>(),
        [[7, 0], [2, 4], [1, 4], [0, 4]]
    );
    let noted: Vec<bool> = configs.iter().map(|&c| notes(c, 1303, 11).contains(&4)).collect();
    assert_eq!(noted, [false, false, true, false]);
    let [split, plain, slow] =
        [(1, 4), (0, 4), (0, 5)].map(|(index, knob)| dnn.plan(wgrad, index, knob));
    let first = memory.gradient(&dnn, plain);
    assert_eq!(memory.gradient(&dnn, plain), first);
    let other = memory.gradient(&dnn, slow);
    assert_ne!(other, first);
    crate::util::close("another order", &other, &first, 1e-6);
    let varying = [0; 3].map(|_| memory.gradient(&dnn, split));
    assert!(
        varying[0] != varying[1] || varying[1] != varying[2],
        "a nondeterministic engine repeats itself"
    );
    crate::util::close("any order", &varying[0], &first, 1e-6);
    // Of a forward all engines are deterministic.
    let forward = dnn.configs(Conv::new(FORWARD, F32), MODE_A).unwrap();
    assert!(forward.iter().all(|&c| !notes(c, 1303, 11).contains(&4)));
}

/// Microseconds of the device's clock that a run of engine `index` takes.
fn microseconds(dnn: &Cudnn, memory: &Memory, conv: Conv, [index, knob]: [i64; 2]) -> f32 {
    let plan = dnn.plan(conv, index, knob);
    let run = || assert_eq!(memory.run(dnn, plan), 0, "{}", said());
    // SAFETY: events and stream are alive, and what is waited for has been recorded.
    unsafe {
        let [start, end] =
            [0; 2].map(|_| result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap());
        result::event::record(start, dnn.gpu.stream).unwrap();
        (0..4).for_each(|_| run());
        result::event::record(end, dnn.gpu.stream).unwrap();
        result::event::synchronize(end).unwrap();
        let ms = result::event::elapsed(start, end).unwrap();
        [start, end].into_iter().for_each(|event| result::event::destroy(event).unwrap());
        1000.0 * ms / 4.0
    }
}

#[test]
fn the_first_of_the_list_is_not_always_the_fastest() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let time = |conv, tag| microseconds(&dnn, &memory, conv, tag);
    let ratio = |conv| time(conv, [0, 4]) / time(conv, [1, 4]);
    let [forward, data, weight] =
        [FORWARD, DATA, WEIGHT].map(|direction| ratio(Conv::new(direction, BF16)));
    // The host's share of each is small, but not nothing.
    assert!(
        (forward - 0.98).abs() <= 0.05
            && (data - 0.7).abs() <= 0.05
            && (weight - 1.3).abs() <= 0.05,
        "{forward} {data} {weight}"
    );
    let wide = Conv { weights: F32, ..Conv::new(WEIGHT, BF16) };
    let slow = time(wide, [0, 5]) / time(Conv::new(WEIGHT, BF16), [1, 4]);
    assert!((slow - 10.0).abs() <= 0.5, "{slow}");
}

#[test]
fn a_bias_of_the_activations_type_needs_no_compiler() {
    let Some(dnn) = Cudnn::new() else { return };
    let plain = Conv::new(FORWARD, BF16);
    let wide = Conv { weights: F32, ..Conv::new(WEIGHT, BF16) };
    for (conv, mode, compiled) in [
        (plain, MODE_A, false),
        (Conv { bias: Some(BF16), ..plain }, MODE_A, false),
        (Conv { bias: Some(F32), ..plain }, MODE_A, true),
        (wide, FALLBACK, true),
    ] {
        let configs = dnn.configs(conv, mode).unwrap();
        assert!(
            !configs.is_empty()
                && configs.iter().all(|&c| notes(c, 1305, 19) == vec![0; usize::from(compiled)])
        );
        let config = *configs.last().unwrap();
        assert!(dnn.build(config).is_ok());
        // What was compiled is spent.
        assert_eq!(dnn.build(config).err(), compiled.then_some(COMPILATION), "{}", said());
    }
    assert!(
        dnn.configs(wide, MODE_A).unwrap().is_empty()
            && dnn.configs(wide, MODE_B).unwrap().is_empty()
    );
    assert!(dnn.configs(Conv { beta: 1.0, ..wide }, FALLBACK).unwrap().is_empty());
    assert!(said().contains("Reason: no engine adds"), "{}", said());
}

/// Each word, the stage that it makes fail, and what is said.
#[test]
fn refusals_have_the_status_of_their_stage() {
    let Some(mut dnn) = Cudnn::new() else { return };
    let memory = Memory::new(&mut dnn);
    let fused = Conv { bias: Some(F32), ..Conv::new(FORWARD, BF16) };
    // From the list of engines to the run of the last one: the status of the first that fails.
    let stages = |conv| -> Result<(), (&str, u32)> {
        let configs = dnn.configs(conv, MODE_A).map_err(|status| ("list", status))?;
        let config = configs.last().ok_or(("empty", 0))?;
        let plan = dnn.build(*config).map_err(|status| ("build", status))?;
        match memory.run(&dnn, plan) {
            0 => Ok(()),
            status => Err(("run", status)),
        }
    };
    for (word, outcome, text) in [
        ("", Ok(()), ""),
        ("all", Err(("empty", 0)), "Warning: CUDNN_STATUS_NOT_SUPPORTED; Reason: all is refused"),
        (
            "nvrtc",
            Err(("empty", 0)),
            "CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING; Reason: compiler.load()",
        ),
        ("heuristics", Err(("list", INTERNAL)), "heuristics_query"),
        ("build", Err(("build", INTERNAL)), "finalize_internal"),
        ("oom", Err(("build", ALLOCATION)), "cudaMalloc"),
        ("compile", Err(("build", COMPILATION)), "NVRTC"),
        ("execute", Err(("run", EXECUTION)), "cuLaunchKernel"),
        ("execute=0:2=4", Err(("run", EXECUTION)), "cuLaunchKernel"),
        ("execute=1:2=4", Ok(()), ""),
    ] {
        refuse(word, 0);
        assert_eq!(stages(fused), outcome, "{word}");
        assert!(said().contains(text), "{word}: {}", said());
    }
    // What is not compiled needs no compiler.
    for word in ["nvrtc", "compile"] {
        refuse(word, 0);
        assert_eq!(stages(Conv { bias: Some(BF16), ..fused }), Ok(()), "{word}");
    }
    refuse("sublibrary", 0);
    let loading = make(0, &[(0, Set::Enum(14, 0)), (1, Set::Enum(1, F32))]).err();
    refuse("", 0);
    assert_eq!(loading, Some(LOADING));
    let rejected = dnn.build(dnn.configs(fused, MODE_A).unwrap()[0]);
    assert!(rejected == Err(UNSUPPORTED) && said().starts_with("{\"engineId\":7,"), "{}", said());
}
