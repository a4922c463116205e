//! Weights files of every format, sound and damaged, and whose they are.

mod hostile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use picie::base::Result;
use picie::net::weights::{Data, Origin, Source, Tensor, Weights, canonical, load, read, write};
use picie::net::{Architecture, expected};

/// What a file of these bytes is read as.
pub fn parse(bytes: &[u8]) -> Result<Weights> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    read(file.path())
}

pub fn golden(name: &str) -> PathBuf {
    crate::util::root().join("tests/golden/weights").join(name)
}

/// Element `i` of the goldens: -3, -2.75, …
fn count(i: usize) -> f32 {
    i as f32 * 0.25 - 3.0
}

fn f32s(shape: &[usize], elements: impl IntoIterator<Item = usize>) -> Tensor {
    Tensor { shape: shape.to_vec(), data: Data::F32(elements.into_iter().map(count).collect()) }
}

/// What `assorted` of tests/golden/weights.py writes.
fn assorted() -> Vec<(&'static str, Tensor)> {
    let i64s = |v: &[i64]| Tensor { shape: vec![v.len()], data: Data::I64(v.to_vec()) };
    let permuted = (0..4).flat_map(|k| (0..6).map(move |ij| ij * 4 + k));
    vec![
        ("plain", f32s(&[2, 3, 4], 0..24)),
        ("permuted", f32s(&[4, 2, 3], permuted)),
        ("channels_last", f32s(&[2, 3, 4, 5], 0..120)),
        ("whole", f32s(&[5, 6], 0..30)),
        ("window", f32s(&[3, 2], [8, 11, 14, 17, 20, 23])),
        ("expanded", f32s(&[3, 4], [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])),
        ("parameter", f32s(&[7], 0..7)),
        ("empty", f32s(&[0, 3], [])),
        ("f64", f32s(&[5], 0..5)),
        ("f16", f32s(&[5], 0..5)),
        ("bf16", f32s(&[5], 0..5)),
        ("i64", Tensor { shape: vec![], data: Data::I64(vec![-(1 << 40) - 1]) }),
        ("i32", i64s(&[-70000, 5])),
        ("i16", i64s(&[-300, 5])),
        ("i8", i64s(&[-100, 5])),
        ("u16", Tensor { shape: vec![2], data: Data::U16(vec![65535, 5]) }),
        ("u8", Tensor { shape: vec![2], data: Data::U8(vec![255, 5]) }),
        ("bool", Tensor { shape: vec![2], data: Data::U8(vec![1, 0]) }),
    ]
}

#[test]
fn every_element_type_and_stride_arrives_from_every_format() {
    for (file, prefix) in [
        ("zip.pth", "state_dict."),
        ("deflated.pth", "state_dict."),
        ("protocol4.pth", "state_dict."),
        ("legacy.pth", "state_dict."),
        ("python.safetensors", ""),
    ] {
        let got = read(&golden(file)).unwrap();
        let mut want = assorted();
        want.retain(|(name, _)| file != "legacy.pth" || *name != "u16");
        for (name, tensor) in &want {
            assert_eq!(
                got.tensors.get(&format!("{prefix}{name}")),
                Some(tensor),
                "{name} of {file}"
            );
        }
        // And nothing else: the optimizer is left out.
        assert_eq!(got.tensors.len(), want.len(), "{file}");
    }
}

#[test]
fn an_archive_has_any_name() {
    let got = read(&golden("named_with_21_letters.pth")).unwrap();
    assert_eq!(got.tensors.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn scalars_of_a_checkpoint_become_metadata() {
    let want = [
        ("args.K_train", "27"),
        ("args.arch", "resnet18"),
        ("args.grey", "true"),
        ("args.huge", "1152921504606846976"),
        ("args.lr", "0.0001"),
        ("args.sizes.0", "1"),
        ("args.sizes.1", "-2"),
        ("epoch", "3"),
        ("extra.a.0", "7"),
        ("name", "grün"),
    ];
    for file in ["zip.pth", "protocol4.pth", "legacy.pth"] {
        let got = read(&golden(file)).unwrap().metadata;
        assert!(got.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(want), "{file}: {got:?}");
    }
}

#[test]
fn the_format_of_2017_is_read() {
    let got = read(&golden("python2.pth")).unwrap().tensors;
    let square = |data: [f32; 4]| Tensor { shape: vec![2, 2], data: Data::F32(data.to_vec()) };
    assert_eq!(got["conv1.weight"], square([1.0, 3.0, 2.0, 4.0]));
    assert_eq!(got["bn1.running_mean"], square([2.0, 4.0, 3.0, 5.0]));
}

#[test]
fn a_pickle_that_asks_for_code_is_refused_by_name() {
    let error = read(&golden("malicious.pth")).unwrap_err().to_string();
    assert!(error.contains("malicious.pth") && error.contains("posix.system"), "{error}");
    assert!(error.contains("safetensors.torch.save_file"), "{error}");
}

#[test]
fn files_that_are_no_weights_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w");
    let whole = std::fs::read(golden("zip.pth")).unwrap();
    let legacy = std::fs::read(golden("legacy.pth")).unwrap();
    let tensors = std::fs::read(golden("python.safetensors")).unwrap();
    let mut flipped = whole.clone();
    let at = whole.windows(8).position(|w| w == [0, 0, 64, 192, 0, 0, 48, 192]).unwrap();
    flipped[at] ^= 1;
    let cases: [(&[u8], &str); 10] = [
        (b"", "it is empty"),
        (b"hello, world", "neither a safetensors file"),
        (&whole[..whole.len() / 2], "damaged weights file: the zip archive"),
        (&flipped, "data/"),
        (&legacy[..legacy.len() - 1], "ends inside storage"),
        (&legacy[..200], "the pickle ends early"),
        (&tensors[..tensors.len() - 1], "damaged weights file: safetensors says"),
        (&tensors[..100], "damaged weights file: safetensors says"),
        (b"\x80\x02}q\x00.", "a Python pickle, but no PyTorch checkpoint"),
        (&std::fs::read(golden("big_endian.pth")).unwrap(), "big-endian"),
    ];
    for (bytes, want) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains(want) && error.starts_with(path.to_str().unwrap()),
            "{error:?} lacks {want:?}"
        );
        assert!(!error.contains('\n'));
    }
    assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("check the path"));
}

#[test]
fn safetensors_round_trip_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = assorted().into_iter().map(|(n, t)| (n.to_string(), t)).collect();
    let metadata = (0..9).map(|i| (format!("key {i}"), format!("\"{i}\" ü"))).collect();
    let weights = Weights { tensors, metadata };
    let [a, b] = ["a", "b"].map(|name| {
        let path = dir.path().join(name);
        write(&path, &weights).unwrap();
        assert_eq!(read(&path).unwrap(), weights);
        std::fs::read(path).unwrap()
    });
    assert_eq!(a, b);
    // The header is in order, and every tensor is aligned to its element.
    let header = std::str::from_utf8(&a[8..]).err().map_or(a.len(), |e| 8 + e.valid_up_to());
    let header = String::from_utf8_lossy(&a[8..header]);
    assert!(header.find("key 3").unwrap() < header.find("key 4").unwrap());
    let file = ::safetensors::SafeTensors::deserialize(&a).unwrap();
    for (name, view) in file.tensors() {
        let at = view.data().as_ptr() as usize - a.as_ptr() as usize;
        assert_eq!(at % (view.dtype().bitsize() / 8), 0, "{name}");
    }
}

#[test]
fn a_safetensors_length_that_spells_another_magic_is_no_other_format() {
    // A header of 0x4b50 bytes begins with "PK", one of 0x80 bytes with a pickle's magic.
    for length in [0x4b50usize, 0x80] {
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#);
        bytes.resize(8 + length, b' ');
        bytes.push(9);
        assert_eq!(parse(&bytes).unwrap().tensors["a"].data, Data::U8(vec![9]));
    }
}

/// The network of `released` in tests/golden/weights.py under this engine's names, in the golden's
/// order.
fn tiny() -> Vec<(String, Vec<usize>)> {
    let mut table: Vec<(String, Vec<usize>)> = Vec::new();
    for (conv, bn, shape) in
        [("conv1", "bn1", [4, 3, 7, 7]), ("layer1.0.conv1", "layer1.0.bn1", [4, 4, 3, 3])]
    {
        table.push((format!("{conv}.weight"), shape.to_vec()));
        table.extend(
            ["weight", "bias", "running_mean", "running_var"]
                .map(|p| (format!("{bn}.{p}"), vec![4])),
        );
    }
    for (lateral, channels) in [(2, 4), (3, 5), (4, 7), (5, 8)] {
        table.push((format!("fpn.lateral{lateral}.weight"), vec![6, channels, 1, 1]));
        table.push((format!("fpn.lateral{lateral}.bias"), vec![6]));
    }
    table
}

fn message(result: Result<(Weights, Origin)>) -> String {
    result.map(|(_, origin)| origin).unwrap_err().to_string()
}

#[test]
fn a_released_checkpoint_gets_our_names() {
    let (weights, origin) = load(&golden("released.pth.tar"), &tiny()).unwrap();
    let Origin::ReleasedPicie { epoch, args } = origin else { panic!("{origin:?}") };
    assert_eq!(
        (epoch, args["K_train"].as_str(), args["metric_test"].as_str()),
        (Some(10), "3", "cosine")
    );
    for (i, (name, shape)) in tiny().iter().enumerate() {
        let want: Vec<f32> = (0..shape.iter().product()).map(|j| count(j) + i as f32).collect();
        assert_eq!(
            weights.tensors[name],
            Tensor { shape: shape.clone(), data: Data::F32(want) },
            "{name}"
        );
    }
    for classifier in ["classifier1", "classifier2"] {
        assert_eq!(weights.tensors[&format!("{classifier}.weight")], f32s(&[3, 6, 1, 1], 0..18));
        assert_eq!(weights.tensors[&format!("{classifier}.bias")], f32s(&[3], 4..7));
    }
    assert_eq!(weights.tensors.len(), tiny().len() + 4);
}

#[test]
fn imagenet_weights_lose_their_fc_and_need_no_fpn() {
    let zeros = |shape: &[usize]| Tensor {
        shape: shape.to_vec(),
        data: Data::F32(vec![0.0; shape.iter().product()]),
    };
    let path = Path::new("some.pth");
    let mut weights = Weights::default();
    for (name, shape) in tiny().iter().filter(|(name, _)| !name.starts_with("fpn.")) {
        weights.tensors.insert(name.clone(), zeros(shape));
    }
    weights.tensors.insert("fc.weight".into(), zeros(&[10, 8]));
    weights.tensors.insert(
        "bn1.num_batches_tracked".into(),
        Tensor { shape: vec![], data: Data::I64(vec![0]) },
    );

    let (got, origin) = canonical(weights.clone(), path, &tiny()).unwrap();
    assert_eq!((origin, got.tensors.len()), (Origin::Torchvision, weights.tensors.len() - 2));

    // Our own file needs its FPN, and keeps what else it has.
    let mut own = weights.clone();
    own.metadata.insert("picie".into(), "1".into());
    let error = message(canonical(own.clone(), path, &tiny()));
    assert!(error.contains("8 tensors are missing: fpn.lateral2.weight"), "{error}");
    own.tensors.extend(tiny().iter().map(|(name, shape)| (name.clone(), zeros(shape))));
    own.tensors.insert("adam.m".into(), zeros(&[3]));
    assert_eq!(canonical(own.clone(), path, &tiny()).unwrap(), (own, Origin::Picie));

    let mut lacking = weights.clone();
    lacking.tensors.remove("bn1.bias");
    let error = message(canonical(lacking, path, &tiny()));
    assert!(error.contains("some.pth") && error.contains("missing: bn1.bias;"), "{error}");

    let mut integer = weights.clone();
    integer
        .tensors
        .insert("bn1.bias".into(), Tensor { shape: vec![4], data: Data::I64(vec![0; 4]) });
    assert!(message(canonical(integer, path, &tiny())).contains("not of floating point"));

    let mut deeper = weights;
    deeper.tensors.insert("layer1.2.conv1.weight".into(), zeros(&[4, 4, 3, 3]));
    let error = message(canonical(deeper, path, &tiny()));
    assert!(error.contains("unknown: layer1.2.conv1.weight"), "{error}");
}

#[test]
fn another_architecture_names_the_first_tensor_that_differs() {
    let mut table = tiny();
    table[5].1 = vec![4, 4, 1, 1];
    table[6].1 = vec![9];
    let error = message(load(&golden("released.pth.tar"), &table));
    let want = "\"layer1.0.conv1.weight\" has shape [4, 4, 3, 3], wanted [4, 4, 1, 1] (its args say arch=resnet18)";
    assert!(error.contains(want), "{error}");

    let mut weights = read(&golden("released.pth.tar")).unwrap();
    weights.tensors.insert("classifier2_state_dict.module.bias".into(), f32s(&[4], 0..4));
    let error = message(canonical(weights, Path::new("x"), &tiny()));
    assert!(
        error.contains("classifier2 has weight and bias of shape [Some([3, 6, 1, 1]), Some([4])]"),
        "{error}"
    );
}

/// The ImageNet weights of the binary, each name below every one of these prefixes, and what else a
/// training program writes.
fn below(prefixes: &[&str], beside: &[&str]) -> Weights {
    let imagenet = Source::Imagenet.open(Architecture::RESNET18).unwrap().weights.unwrap();
    let mut tensors = BTreeMap::new();
    for prefix in prefixes {
        let named = imagenet.tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t.clone()));
        tensors.extend(named);
    }
    tensors.extend(beside.iter().map(|name| (name.to_string(), f32s(&[2], 0..2))));
    Weights { tensors, metadata: BTreeMap::new() }
}

#[test]
fn a_network_is_found_under_any_one_prefix() {
    let expected = expected(Architecture::RESNET18);
    let found = |prefixes: &[&str], beside: &[&str]| {
        canonical(below(prefixes, beside), Path::new("file"), &expected)
    };
    let plain = below(&[""], &[]).tensors;
    for (prefixes, beside) in [
        (&[""][..], &["fc.weight"][..]),
        (&["_orig_mod."], &[]),
        (&["module._orig_mod."], &["module._orig_mod.fc.bias"]),
        // Lightning, and what its optimizer has.
        (&["state_dict.model."], &["optimizer_states.0.state.0.exp_avg"]),
        (&["model."], &["optimizer_state_dict.state.0"]),
        (&["model_state_dict."], &[]),
        (&["net.module."], &[]),
        // MoCo: the encoder of queries, and its queue.
        (&["state_dict.module.encoder_q."], &["state_dict.module.queue"]),
        (
            &["state_dict.module.encoder_q.", "state_dict.module.encoder_k."],
            &["state_dict.module.encoder_q.fc.0.weight"],
        ),
        (
            &["state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."],
            &["state_dict.module.base_encoder.fc.0.weight", "state_dict.module.predictor.0.weight"],
        ),
        // Segmentation and detection have decoders of their own.
        (&["backbone.0.body."], &["transformer.decoder.layers.0.norm1.weight"]),
        (&["encoder."], &["decoder.layer1.0.conv1.weight", "decoder.layer1.weight"]),
        // DINO evaluates its teacher.
        (&["student.module.backbone.", "teacher.backbone."], &["teacher.head.mlp.0.weight"]),
        (&["student.backbone.", "teacher.backbone."], &["teacher.head.mlp.0.weight"]),
        (&["backbone."], &["decode_head.conv_seg.weight"]),
    ] {
        match found(prefixes, beside) {
            Ok((weights, Origin::Torchvision)) => assert!(weights.tensors == plain, "{prefixes:?}"),
            other => panic!("{prefixes:?}: {:?}", other.map(|(_, origin)| origin)),
        }
    }
    let said = found(&["a.", "b."], &[]).unwrap_err().to_string();
    assert!(said.contains("2 networks: a.conv1.weight, b.conv1.weight"), "{said}");
    // Beside the network nothing is known; inside it everything is.
    let said = found(&["model."], &["model.extra.weight"]).unwrap_err().to_string();
    assert!(said.contains("1 tensors are unknown: extra.weight"), "{said}");
}
