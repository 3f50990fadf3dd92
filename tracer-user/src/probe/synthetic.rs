//! BTF made from a few declarations in text, for tests of kernels that cannot be booted: see
//! `tests/fixtures/kernels/README.md`.

use std::collections::HashMap;

use super::btf::KernelTypes;

/// The types that these lines declare.
///
/// # Panics
/// On a line that is none of the declarations: a fixture is part of the tests.
pub fn kernel(text: &str) -> KernelTypes {
    let mut btf = Btf::default();
    let lines = || {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    // Structs first, so that members and arguments find those that are declared later.
    for line in lines().filter(|line| line.starts_with("struct ")) {
        btf.declare_struct(line);
    }
    for line in lines() {
        let (what, rest) = line.split_once(' ').expect("a declaration");
        match what {
            "struct" => {}
            "enum" => btf.declare_enumerator(rest),
            "fn" => btf.declare_function(rest),
            "tp" => btf.declare_tracepoint(rest),
            _ => panic!("{line}: no such declaration"),
        }
    }
    KernelTypes::parse(btf.finish()).expect("well-formed BTF")
}

const INT: u32 = 1;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;

#[derive(Default)]
struct Btf {
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
}

impl Btf {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let offset = u32::try_from(self.strings.len()).expect("a small fixture");
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        offset
    }

    /// Adds a type and returns its number.
    fn add(&mut self, kind: u32, name: &str, size_or_type: u32, tail: &[u32], members: u32) -> u32 {
        let name = self.name(name);
        for word in [name, kind << 24 | members, size_or_type].iter().chain(tail) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    /// The number of a type as C writes it, declared if it is new.
    fn of(&mut self, name: &str) -> u32 {
        let name = name.trim().trim_start_matches("const ");
        if name == "void" {
            return 0;
        }
        if let Some(&id) = self.known.get(name) {
            return id;
        }
        let id = if let Some(target) = name.strip_suffix('*') {
            let target = self.of(target);
            self.add(PTR, "", target, &[], 0)
        } else if let Some(tag) = name.strip_prefix("struct ") {
            self.add(STRUCT, tag, 0, &[], 0)
        } else if let Some(tag) = name.strip_prefix("enum ") {
            self.add(ENUM, tag, 4, &[], 0)
        } else {
            // Whether it is an int or a typedef of one is all the same by name.
            self.add(INT, name, 4, &[32], 0)
        };
        self.known.insert(name.to_owned(), id);
        id
    }

    fn declare_struct(&mut self, line: &str) {
        let mut words = line.split_whitespace().skip(1);
        let tag = words.next().expect("a struct has a name");
        let size = number(words.next().expect("a struct has a size"));
        let mut tail = Vec::new();
        let mut members = 0;
        for word in words {
            let (member, offset) = word.split_once('@').expect("MEMBER@OFFSET");
            let (member, of) = match member.split_once(':') {
                Some((member, tag)) => (member, self.of(&format!("struct {tag}"))),
                None => (member, self.of("long unsigned int")),
            };
            tail.extend([self.name(member), of, 8 * number(offset)]);
            members += 1;
        }
        let id = self.add(STRUCT, tag, size, &tail, members);
        self.known.insert(format!("struct {tag}"), id);
    }

    fn declare_enumerator(&mut self, rest: &str) {
        let (name, value) = rest.split_once(' ').expect("NAME VALUE");
        let name = self.name(name);
        self.add(ENUM, "", 4, &[name, number(value)], 1);
    }

    fn declare_function(&mut self, rest: &str) {
        let (head, arguments) = parts(rest);
        let (result, name) = head.rsplit_once(' ').expect("RETURN NAME");
        let proto = self.proto(result, arguments);
        self.add(FUNC, name, proto, &[], 0);
    }

    fn declare_tracepoint(&mut self, rest: &str) {
        let (name, arguments) = parts(rest);
        let proto = self.proto("void", &format!("void *, {arguments}"));
        let pointer = self.add(PTR, "", proto, &[], 0);
        self.add(TYPEDEF, &format!("btf_trace_{name}"), pointer, &[], 0);
    }

    fn proto(&mut self, result: &str, arguments: &str) -> u32 {
        let result = self.of(result);
        let mut tail = Vec::new();
        let mut count = 0;
        for argument in arguments.split(',') {
            tail.extend([0, self.of(argument)]);
            count += 1;
        }
        self.add(FUNC_PROTO, "", result, &tail, count)
    }

    fn finish(mut self) -> Vec<u8> {
        self.name("");
        let (types, strings) = (self.types.len(), self.strings.len());
        let mut data = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            data.extend(u32::try_from(word).expect("a small fixture").to_le_bytes());
        }
        data.extend(self.types);
        data.extend(self.strings);
        data
    }
}

/// `HEAD(ARGUMENTS)`
fn parts(declaration: &str) -> (&str, &str) {
    let (head, rest) = declaration.split_once('(').expect("an argument list");
    (
        head,
        rest.trim_end().strip_suffix(')').expect("the end of the arguments"),
    )
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}
