//! Writes `$OUT_DIR/kernels.rs` from the kernel files, so that what host and kernels share stands
//! in the kernel files alone:
//!
//! * `consts::<stem>`: the integer constants of a file, and of what it includes;
//! * a struct for each entry, with a named and typed field for each parameter, which `Cuda::launch`
//!   takes; and one for each struct that a kernel takes by value;
//! * `KERNELS`: stem and name of every entry, in the order of their indices;
//! * assertions that structs which kernels read from memory are laid out in Rust as here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use crate::parse::{By, Field, Kernel, Source, declarations, parse};

/// The text of `kernels.rs`. Panics where a file says what cannot be written in Rust.
pub fn generate(files: &[(PathBuf, String)]) -> String {
    let sources: Vec<(String, Source)> =
        files.iter().map(|(path, text)| (stem(path), parse(text))).collect();
    let structs: BTreeMap<&str, Vec<Field>> = sources
        .iter()
        .flat_map(|(_, source)| &source.structs)
        // NOTE: structs with functions are of no kernel's interface, and are no lists of fields.
        .filter(|(_, body)| !body.contains('('))
        .map(|(name, body)| (name.as_str(), declarations(body)))
        .collect();
    let all = Structs(structs);
    let (mut by_value, mut in_memory) = (BTreeMap::new(), BTreeMap::new());
    let mut kernels = String::new();
    let mut table = String::new();
    let mut count = 0;
    for (stem, source) in &sources {
        for kernel in &source.kernels {
            all.collect(&kernel.parameters, stem, &mut by_value, &mut in_memory);
            kernels += &all.entry(stem, kernel, count);
            writeln!(table, "    ({stem:?}, {:?}),", kernel.name).expect("memory");
            count += 1;
        }
    }
    let mut text = consts(&sources);
    for (name, stem) in &by_value {
        text += &all.by_value(name, stem);
    }
    text += &kernels;
    for name in in_memory.keys() {
        text += &all.in_memory(name);
    }
    text + &format!(
        "/// Stem and name of each entry.\npub(super) const KERNELS: [(&str, &str); {count}] = [\n{table}];\n"
    )
}

fn stem(path: &std::path::Path) -> String {
    path.file_stem().expect("a file name").to_string_lossy().into()
}

/// A module of constants for each stem; a header and a source of one stem share it.
fn consts(sources: &[(String, Source)]) -> String {
    let mut modules: BTreeMap<&str, (Vec<String>, String)> = BTreeMap::new();
    for (stem, source) in sources {
        let (uses, lines) = modules.entry(stem).or_default();
        for file in &source.includes {
            let other = file.trim_end_matches(".cuh");
            if other != stem && sources.iter().any(|(stem, _)| stem == other) {
                uses.push(format!("        pub use super::{other}::*;\n"));
            }
        }
        for (name, value) in &source.constants {
            writeln!(lines, "        pub const {name}: usize = {};", expression(value))
                .expect("memory");
        }
    }
    let mut text = "#[allow(dead_code, unused_imports)]\npub(super) mod consts {\n".to_string();
    for (stem, (uses, lines)) in modules {
        write!(text, "    pub mod {stem} {{\n{}{lines}    }}\n", uses.concat()).expect("memory");
    }
    text + "}\n"
}

/// An integer expression of C in Rust: only sizes of types and suffixes look different.
fn expression(value: &str) -> String {
    let types = [("float", "f32"), ("double", "f64"), ("int", "i32"), ("unsigned", "u32")];
    let sizes = types.iter().fold(value.to_string(), |text, (c, rust)| {
        text.replace(&format!("sizeof({c})"), &format!("size_of::<{rust}>()"))
    });
    match sizes.strip_suffix('u') {
        Some(number) if number.starts_with(|c: char| c.is_ascii_digit()) => number.into(),
        _ => sizes,
    }
}

/// `norm_apply` as `NormApply`.
fn camel(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(capital).collect()
}

/// The plain structs of all files, by name.
struct Structs<'a>(BTreeMap<&'a str, Vec<Field>>);

impl Structs<'_> {
    /// The structs that these fields use, each with the stem of the file that does.
    fn collect(
        &self,
        fields: &[Field],
        stem: &str,
        by_value: &mut BTreeMap<String, String>,
        in_memory: &mut BTreeMap<String, String>,
    ) {
        for field in fields {
            let Some(inner) = self.0.get(field.ty.as_str()) else { continue };
            match field.by {
                By::Value => {
                    by_value.entry(field.ty.clone()).or_insert(stem.into());
                    self.collect(inner, stem, by_value, in_memory);
                }
                By::Pointer | By::Maybe => {
                    in_memory.insert(field.ty.clone(), stem.into());
                }
            }
        }
    }

    /// An entry's arguments.
    fn entry(&self, stem: &str, kernel: &Kernel, index: usize) -> String {
        let Kernel { name, threads, parameters } = kernel;
        let ty = camel(name);
        let start = |field: &Field| format!("        p.start();\n{}", self.pack(field, name));
        let (fields, pack) =
            (self.fields(parameters, stem), parameters.iter().map(start).collect::<String>());
        format!(
            "/// The arguments of `{name}` in cuda/{stem}.cu.\npub(super) struct {ty} {{\n{fields}}}\n\
             impl Launch for {ty} {{\n    const INDEX: usize = {index};\n    const THREADS: usize = {{\n        \
             #[allow(unused_imports)]\n        use consts::{stem}::*;\n        {threads}\n    }};\n\n    \
             fn pack(&self, p: &mut Parameters) -> Result<()> {{\n{pack}        Ok(())\n    }}\n}}\n\n"
        )
    }

    /// A struct that a kernel takes by value.
    fn by_value(&self, name: &str, stem: &str) -> String {
        let fields = &self.0[name];
        let pack: String = fields.iter().map(|field| self.pack(field, name)).collect();
        let (align, fields) = (self.align(name), self.fields(fields, stem));
        format!(
            "/// `{name}`, which kernels take by value.\n#[derive(Clone, Copy)]\npub(super) struct {name} {{\n\
             {fields}}}\nimpl {name} {{\n    fn pack(&self, p: &mut Parameters) -> Result<()> {{\n        \
             p.align({align});\n{pack}        p.align({align});\n        Ok(())\n    }}\n}}\n\n"
        )
    }

    /// The assertion that a struct of the contract has these fields, of these types, in these
    /// places.
    fn in_memory(&self, name: &str) -> String {
        let (mut fields, mut checks) = (String::new(), String::new());
        for field in &self.0[name] {
            let (own, ty) = (&field.name, element(&field.ty));
            writeln!(fields, "        {own}: {ty},").expect("memory");
            writeln!(checks, "    let _: fn(&{name}) -> &{ty} = |x| &x.{own};").expect("memory");
            writeln!(
                checks,
                "    assert!(std::mem::offset_of!({name}, {own}) == std::mem::offset_of!(Kernels, {own}));"
            )
            .expect("memory");
        }
        format!(
            "// `{name}` is the same to host and kernels.\nconst _: () = {{\n    #[repr(C)]\n    #[allow(dead_code)]\n    \
             struct Kernels {{\n{fields}    }}\n    assert!(size_of::<{name}>() == size_of::<Kernels>());\n{checks}}};\n\n"
        )
    }

    /// Declarations of fields.
    fn fields(&self, fields: &[Field], stem: &str) -> String {
        let one = |field: &Field| {
            let ty = match field.by {
                By::Pointer => format!("Slot<{}>", element(&field.ty)),
                By::Maybe => format!("Option<Slot<{}>>", element(&field.ty)),
                By::Value => self.value(&field.ty).into(),
            };
            let ty = match &field.count {
                Some(count) if count.starts_with(|c: char| c.is_ascii_digit()) => {
                    format!("[{ty}; {count}]")
                }
                Some(count) => format!("[{ty}; consts::{stem}::{count}]"),
                None => ty,
            };
            format!("    pub {}: {ty},\n", field.name)
        };
        fields.iter().map(one).collect()
    }

    /// The type of a value in Rust.
    fn value<'a>(&self, ty: &'a str) -> &'a str {
        match ty {
            "int" | "unsigned" | "size_t" => "usize",
            "float" => "f32",
            "bool" => "bool",
            _ if self.0.contains_key(ty) => ty,
            _ => panic!("a kernel takes {ty} by value, which no launcher knows"),
        }
    }

    /// Lines that append a field to the parameters.
    fn pack(&self, field: &Field, of: &str) -> String {
        let line = |x: &str| match (field.by, field.ty.as_str()) {
            (By::Pointer, _) => format!("p.slot({x});"),
            (By::Maybe, _) => format!("p.maybe({x});"),
            (_, "size_t") => format!("p.long({x});"),
            (_, "float") => format!("p.float({x});"),
            (_, "bool") => format!("p.flag({x});"),
            (_, "int") => format!("p.int(\"{of}: {}\", {x})?;", field.name),
            (_, "unsigned") => format!("p.unsigned(\"{of}: {}\", {x})?;", field.name),
            _ => format!("{x}.pack(p)?;"),
        };
        let name = &field.name;
        match field.count {
            Some(_) => {
                format!("        for x in self.{name} {{\n            {}\n        }}\n", line("x"))
            }
            None => format!("        {}\n", line(&format!("self.{name}"))),
        }
    }

    /// The alignment of a struct in C.
    fn align(&self, name: &str) -> usize {
        let of = |field: &Field| match (field.by, field.ty.as_str()) {
            (By::Pointer | By::Maybe, _) | (_, "size_t") => 8,
            (_, "bool") => 1,
            (_, "int" | "unsigned" | "float") => 4,
            (_, inner) => self.align(inner),
        };
        self.0[name].iter().map(of).max().expect("a struct has fields")
    }
}

/// The type of what a pointer points to in Rust.
fn element(ty: &str) -> &str {
    match ty {
        "act" => "Act",
        "float" => "f32",
        "double" => "f64",
        "unsigned char" => "u8",
        "unsigned short" => "u16",
        "unsigned" => "u32",
        "int" => "i32",
        other => other,
    }
}
