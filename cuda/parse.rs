//! Reads a kernel file: its entries, its integer constants, its structs and what it includes. Used
//! by build.rs, and by the tests, which build the software GPU from the same files.
//!
//! This is no C++ parser. It knows declarations that begin a line, as clang-format leaves them:
//!
//! ```text
//! KERNEL(norm_apply, THREADS)(act* __restrict__ z, Maybe<const act> residual, int rows, bool relu) {
//! constexpr int TILE = 64, CHUNK = TILE / 2;
//! struct Laterals {
//! ```

/// What was found in one `.cu` or `.cuh`.
#[derive(Debug, Default)]
pub struct Source {
    /// The files that it includes, by name.
    pub includes: Vec<String>,
    /// Name and value of `constexpr int` and `constexpr unsigned`, the value as it is written.
    pub constants: Vec<(String, String)>,
    /// Name and text of each plain struct: [`declarations`] reads the text.
    pub structs: Vec<(String, String)>,
    pub kernels: Vec<Kernel>,
}

/// `KERNEL(name, threads)(parameters)` or `KERNEL(name, threads, blocks)(parameters)`.
#[derive(Debug)]
pub struct Kernel {
    /// The name without the suffix of its element type.
    pub name: String,
    /// Threads of a block: a number, or the name of a constant.
    pub threads: String,
    pub parameters: Vec<Field>,
}

/// A parameter of a kernel, or a field of a struct.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    /// The type, or what is pointed to: `act`, `unsigned char`, `Laterals`.
    pub ty: String,
    pub by: By,
    /// The length of an array, as it is written.
    pub count: Option<String>,
}

/// How a kernel gets something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Value,
    Pointer,
    /// A pointer that may be null: `Maybe<const act> residual`.
    Maybe,
}

/// Reads a file. Panics on what it does not understand, and says what that is.
pub fn parse(text: &str) -> Source {
    let mut source = Source::default();
    let code = strip(text, &mut source.includes);
    for (at, _) in code.match_indices('\n') {
        let line = &code[at + 1..];
        let constant =
            ["constexpr int ", "constexpr unsigned "].iter().find_map(|s| line.strip_prefix(s));
        if let Some(rest) = constant {
            let list = rest.split(';').next().expect("split gives one part at least");
            for one in list.split(',') {
                let (name, value) = one.split_once('=').expect("a constant has a value");
                source.constants.push((name.trim().into(), value.trim().into()));
            }
        } else if let Some((name, body)) =
            line.strip_prefix("struct ").and_then(|s| s.split_once(" {"))
            && is_word(name)
        {
            let body = body.split("\n}").next().expect("split gives one part at least");
            source.structs.push((name.into(), body.into()));
        } else if let Some(head) = line.strip_prefix("KERNEL(") {
            source.kernels.push(kernel(head));
        }
    }
    source
}

/// `KERNEL(` and what follows it.
fn kernel(head: &str) -> Kernel {
    let wrong = || -> ! { panic!("no entry: KERNEL({}", head.lines().next().unwrap_or_default()) };
    let Some((own, rest)) = head.split_once(')') else { wrong() };
    let (Some((name, threads)), Some(rest)) =
        (own.split_once(','), rest.trim_start().strip_prefix('('))
    else {
        wrong()
    };
    // Blocks of a multiprocessor are the compiler's matter.
    let threads = threads.split(',').next().unwrap_or_default();
    // Parameters have no parentheses of their own.
    let Some((list, _)) = rest.split_once(')') else { wrong() };
    let list = list.split(',').filter(|one| !one.trim().is_empty());
    let parameters = list.flat_map(declarations).collect();
    Kernel { name: name.trim().into(), threads: threads.trim().into(), parameters }
}

/// The code without comments and preprocessor lines, with an empty first line.
fn strip(text: &str, includes: &mut Vec<String>) -> String {
    let mut code = "\n".to_string();
    let mut continued = false;
    for line in text.lines() {
        let directive = continued || line.starts_with('#');
        continued = directive && line.ends_with('\\');
        if let Some(name) = line.strip_prefix("#include \"") {
            let name = name.trim_end_matches('"').rsplit('/').next().unwrap_or_default();
            includes.push(name.into());
        }
        if !directive {
            code += line.split("//").next().expect("split gives one part at least");
        }
        code.push('\n');
    }
    code
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Words and single signs.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (token, behind) = rest.split_at(if word > 0 { word } else { first.len_utf8() });
        found.push(token);
        rest = behind.trim_start();
    }
    found
}

/// `const float *w, *b;` and `Target at[MOST];`: each name with its type.
pub fn declarations(text: &str) -> Vec<Field> {
    text.split(';').filter(|one| !one.trim().is_empty()).flat_map(declaration).collect()
}

fn declaration(text: &str) -> Vec<Field> {
    let plain = |t: &&str| !["const", "__restrict__"].contains(t);
    let tokens: Vec<&str> = tokens(text).into_iter().filter(plain).collect();
    let mut rest = tokens.as_slice();
    let wrong = |at: &[&str]| -> ! { panic!("`{}` is not understood at {at:?}", text.trim()) };
    let (ty, of) = match rest {
        ["Maybe", "<", inner @ ..] => {
            let end = inner.iter().position(|t| *t == ">").unwrap_or_else(|| wrong(inner));
            rest = &inner[end + 1..];
            (inner[..end].join(" "), By::Maybe)
        }
        ["unsigned", more @ ("char" | "short"), ..] => {
            let ty = format!("unsigned {more}");
            rest = &rest[2..];
            (ty, By::Value)
        }
        [ty, ..] if is_word(ty) => {
            rest = &rest[1..];
            (ty.to_string(), By::Value)
        }
        _ => wrong(rest),
    };
    let mut fields = Vec::new();
    for one in rest.split(|t| *t == ",") {
        let (by, one) = match one {
            ["*", one @ ..] => (By::Pointer, one),
            one => (of, one),
        };
        let (name, count) = match one {
            [name] => (name, None),
            [name, "[", count @ .., "]"] => (name, Some(count.join(" "))),
            _ => wrong(one),
        };
        if !is_word(name) {
            wrong(one);
        }
        fields.push(Field { name: name.to_string(), ty: ty.clone(), by, count });
    }
    fields
}
