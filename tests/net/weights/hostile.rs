//! Files that were made to do harm: they are refused, and nothing panics.

use super::{golden, parse};
use proptest::prelude::*;

/// A file of the old format around a hostile object and one storage "0" of 4 floats.
fn legacy(object: &[u8]) -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02".to_vec();
    file.extend(object);
    file.extend(b".\x80\x02](U\x010e.\x04\0\0\0\0\0\0\0");
    file.extend([0; 16]);
    file
}

/// {"a": a tensor of this size and stride}
fn tensor_of(size: &[u8], stride: &[u8]) -> Vec<u8> {
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ";
    legacy(
        &[
            b"}U\x01actorch._utils\n_rebuild_tensor\n(",
            &storage[..],
            b"K\x00",
            size,
            stride,
            b"tRs",
        ]
        .concat(),
    )
}

#[test]
fn sizes_that_lie_are_refused() {
    assert_eq!(
        parse(&tensor_of(b"K\x02K\x02\x86", b"K\x02K\x01\x86")).unwrap().tensors["a"].shape,
        [2, 2]
    );
    let cases: [(&[u8], &[u8], &str); 9] = [
        (b"K\x05\x85", b"K\x01\x85", "ends at byte 20 of a storage of 16 bytes"),
        (b"K\x02K\x02\x86", b"K\x03K\x01\x86", "ends at byte 20"),
        (b"K\x02\x85", b"\x8a\x06\xff\xff\xff\xff\xff\x7f\x85", "of a storage of 16 bytes"),
        (b"\x8a\x06\xff\xff\xff\xff\xff\x7f\x85", b"K\x00\x85", "(an expanded tensor)"),
        (b"\x8a\x06\xff\xff\xff\xff\xff\x7f2\x86", b"K\x00K\x00\x86", "(an expanded tensor)"),
        (b"J\0\0\0\x40\x85", b"K\x00\x85", "repeats a storage of 16 bytes"),
        (b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t", b"K\x01\x85", "has 9 axes"),
        (b"J\xff\xff\xff\xff\x85", b"K\x01\x85", "is no size"),
        (b"K\x02\x85", b"K\x01K\x01\x86", "sizes [2] and strides [1, 1]"),
    ];
    for (size, stride, want) in cases {
        let fault = parse(&tensor_of(size, stride)).unwrap_err().to_string();
        assert!(fault.contains(want), "{fault} lacks {want:?}");
    }
}

#[test]
fn hostile_containers_end() {
    let fault = |object: &[u8]| parse(&legacy(object)).unwrap_err().to_string();
    // Nested 100,000 deep; a list that holds itself; lists that hold the last one ten times, eight
    // times over.
    let keyed = |inner: &[u8]| [b"}U\x01x", inner, b"s"].concat();
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ0";
    let wrap = |inner: &[u8]| [&storage[..], &keyed(inner)].concat();
    let bomb: Vec<u8> = (0..9u8).fold(b"]q\0".to_vec(), |b, i| {
        [b, b"0](".to_vec(), [b'h', i].repeat(10), vec![b'e', b'q', i + 1]].concat()
    });
    assert!(
        fault(&wrap(&[b")".to_vec(), vec![0x85; 100_000]].concat()))
            .contains("too deep or too long")
    );
    assert!(fault(&wrap(b"]q\0h\0a")).contains("too deep or too long"));
    assert!(fault(&wrap(&bomb)).contains("too deep or too long"));
    assert!(fault(&[&storage[..], b"K\x01"].concat()).contains("no dict of tensors"));
    assert!(fault(b"U\xff").contains("ends early"));
    assert!(fault(b"K\x01(0").contains("never made"));
    // Two thousand dicts made of one list of a thousand pairs; one long string under two thousand
    // names.
    let pairs =
        [b"]q\x01(", b"NN\x86".repeat(1000).as_slice(), b"e0ccollections\nOrderedDict\nq\x020"]
            .concat();
    assert!(
        fault(&[pairs, b"h\x02h\x01\x85R0".repeat(2000)].concat())
            .contains("copies its containers")
    );
    let items: Vec<u8> =
        (0..2000u16).flat_map(|i| [&b"M"[..], &i.to_le_bytes(), b"h\x03"].concat()).collect();
    let text =
        [b"T\xff\xff\0\0", b"a".repeat(65535).as_slice(), b"q\x030}(", &items, b"u"].concat();
    assert!(fault(&[&storage[..], &text].concat()).contains("too deep or too long"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0..4usize) {
        let magic: [&[u8]; 4] = [b"", b"PK\x03\x04", b"\x80\x02", b"\x20\0\0\0\0\0\0\0{"];
        let _ = parse(&[magic[head], &bytes].concat());
        let _ = parse(&legacy(&bytes));
    }

    #[test]
    fn mutations_of_sound_files_never_panic(
        file in 0..5usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let name = ["zip.pth", "legacy.pth", "python2.pth", "python.safetensors", "deflated.pth"][file];
        let mut bytes = std::fs::read(golden(name)).unwrap();
        let pickle = bytes.windows(2).position(|w| w == [0x80, 2]).unwrap_or(0);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        let _ = parse(&bytes);
        // A zip's checksums hide its pickle from changes, so the pickle alone as well.
        let _ = parse(&legacy(&bytes[bytes.len().min(pickle + 2)..]));
    }
}
