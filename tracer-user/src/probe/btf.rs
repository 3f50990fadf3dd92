//! The running kernel's types, read from its BTF: offsets of fields, values of enums, prototypes of functions.
//!
//! aya keeps its own BTF types private and the other reader is under the LGPL, hence this one: the format is a table.
//! Format: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.

use std::collections::HashMap;
use std::path::Path;

/// Why the kernel's types could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    /// The kernel has no BTF, or it cannot be opened.
    #[error("{path}: {source}: this kernel shows no BTF (CONFIG_DEBUG_INFO_BTF)")]
    Open {
        /// Where it should be.
        path: String,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The data is not BTF, or is cut off.
    #[error("BTF is malformed at byte {0}")]
    Malformed(usize),
}

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// How many typedefs, qualifiers and anonymous members are followed before a type is taken for a loop.
const MAX_DEPTH: u32 = 32;

#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    info: u32,
    size_or_type: u32,
    /// Byte offset of what follows the common part.
    tail: usize,
}

impl Type {
    const fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    const fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }

    const fn kind_flag(self) -> bool {
        self.info >> 31 != 0
    }
}

/// The types of a kernel.
#[derive(Debug)]
pub struct KernelTypes {
    data: Vec<u8>,
    strings: usize,
    types: Vec<Type>,
    by_name: HashMap<(u32, String), u32>,
    enum_values: HashMap<String, u64>,
}

impl KernelTypes {
    /// Reads the running kernel's types below a root path (`/`).
    ///
    /// # Errors
    /// When the kernel shows no BTF, or it is malformed.
    pub fn of_running_kernel(root: &Path) -> Result<Self, TypesError> {
        let path = root.join("sys/kernel/btf/vmlinux");
        let data = std::fs::read(&path).map_err(|source| TypesError::Open {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(data)
    }

    /// Reads types from BTF data.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(data: Vec<u8>) -> Result<Self, TypesError> {
        let malformed = TypesError::Malformed;
        if u16_at(&data, 0) != Some(MAGIC) {
            return Err(malformed(0));
        }
        let field = |offset| {
            u32_at(&data, offset)
                .map(|value| value as usize)
                .ok_or(malformed(offset))
        };
        let header = field(4)?.max(HEADER_LEN);
        let (start, len) = (header.saturating_add(field(8)?), field(12)?);
        let strings = header.saturating_add(field(16)?);
        let end = start.saturating_add(len);
        if end > data.len() || strings > data.len() {
            return Err(malformed(data.len()));
        }
        let mut this = Self {
            data,
            strings,
            types: Vec::new(),
            by_name: HashMap::new(),
            enum_values: HashMap::new(),
        };
        // Type 0 is void.
        this.types.push(Type {
            name: 0,
            info: 0,
            size_or_type: 0,
            tail: 0,
        });
        let mut offset = start;
        while offset < end {
            offset = this.read_type(offset).ok_or(malformed(offset))?;
        }
        Ok(this)
    }

    /// Reads one type and returns the offset of the next.
    fn read_type(&mut self, offset: usize) -> Option<usize> {
        let word = |index: usize| u32_at(&self.data, offset + 4 * index);
        let (name, info, size_or_type) = (word(0)?, word(1)?, word(2)?);
        let kind = Type {
            name,
            info,
            size_or_type,
            tail: offset + 12,
        };
        let tail = match kind.kind() {
            KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_FUNC
            | KIND_FLOAT | KIND_TYPE_TAG => 0,
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * kind.len(),
            KIND_ENUM | KIND_FUNC_PROTO => 8 * kind.len(),
            _ => return None,
        };
        let id = u32::try_from(self.types.len()).ok()?;
        self.types.push(kind);
        if let Some(name) = self.string(name).filter(|name| !name.is_empty()) {
            let name = name.to_owned();
            self.by_name.entry((kind.kind(), name)).or_insert(id);
        }
        self.read_enum_values(kind);
        Some(offset + 12 + tail)
    }

    fn read_enum_values(&mut self, kind: Type) {
        let step = match kind.kind() {
            KIND_ENUM => 8,
            KIND_ENUM64 => 12,
            _ => return,
        };
        for index in 0..kind.len() {
            let at = kind.tail + step * index;
            let (Some(name), Some(low)) = (u32_at(&self.data, at), u32_at(&self.data, at + 4)) else {
                return;
            };
            let high = if step == 12 {
                u32_at(&self.data, at + 8).unwrap_or(0)
            } else {
                0
            };
            if let Some(name) = self.string(name).map(str::to_owned) {
                self.enum_values
                    .entry(name)
                    .or_insert(u64::from(high) << 32 | u64::from(low));
            }
        }
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let start = self.strings.checked_add(offset as usize)?;
        let rest = self.data.get(start..)?;
        let len = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&rest[..len]).ok()
    }

    fn type_at(&self, id: u32) -> Option<Type> {
        self.types.get(id as usize).copied()
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<(u32, Type)> {
        for _ in 0..MAX_DEPTH {
            let found = self.type_at(id)?;
            match found.kind() {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => id = found.size_or_type,
                _ => return Some((id, found)),
            }
        }
        None
    }

    /// Byte offset of a field, by a path such as `mem_cgroup.css.cgroup` that goes through embedded structs, unions
    /// and anonymous members. `None` when there is no such struct or field, or it is a bit field.
    #[must_use]
    pub fn field_offset(&self, path: &str) -> Option<u32> {
        let mut parts = path.split('.');
        let root = parts.next()?;
        let mut id = *self.by_name.get(&(KIND_STRUCT, root.to_owned()))?;
        let mut bits = 0;
        for part in parts {
            let (offset, member) = self.member(id, part, MAX_DEPTH)?;
            bits += offset;
            id = member;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Bytes of a struct.
    #[must_use]
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let id = *self.by_name.get(&(KIND_STRUCT, name.to_owned()))?;
        Some(self.type_at(id)?.size_or_type)
    }

    /// Bit offset and type of a member, looked for inside anonymous members too.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let (_, container) = self.strip(id)?;
        if depth == 0 || !matches!(container.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..container.len() {
            let at = container.tail + 12 * index;
            let (member_name, member_type) = (u32_at(&self.data, at)?, u32_at(&self.data, at + 4)?);
            let raw = u32_at(&self.data, at + 8)?;
            let offset = if container.kind_flag() { raw & 0x00ff_ffff } else { raw };
            let member_name = self.string(member_name)?;
            if member_name == name {
                return Some((offset, member_type));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth - 1)
            {
                return Some((offset + inner, found));
            }
        }
        None
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enum_value(&self, name: &str) -> Option<u64> {
        self.enum_values.get(name).copied()
    }

    /// The id of a function's type, by which programs are attached to it.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.by_name.get(&(KIND_FUNC, name.to_owned())).copied()
    }

    /// The id of a tracepoint's type, by which programs are attached to it.
    #[must_use]
    pub fn tracepoint_id(&self, name: &str) -> Option<u32> {
        self.by_name.get(&(KIND_TYPEDEF, format!("btf_trace_{name}"))).copied()
    }

    /// Types of a function's arguments and its return type (last), as C writes them, without qualifiers.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Vec<String>> {
        let id = *self.by_name.get(&(KIND_FUNC, name.to_owned()))?;
        self.prototype(self.type_at(id)?.size_or_type)
    }

    /// Types of a function's arguments, as [`KernelTypes::function`].
    #[must_use]
    pub fn arguments(&self, name: &str) -> Option<Vec<String>> {
        let mut types = self.function(name)?;
        types.pop();
        Some(types)
    }

    /// Types of a tracepoint's arguments as a tp_btf program sees them; `None` where there is no such tracepoint.
    ///
    /// kernel: `typedef void (*btf_trace_NAME)(void *__data, ...)`, include/trace/bpf_probe.h
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let id = *self.by_name.get(&(KIND_TYPEDEF, format!("btf_trace_{name}")))?;
        let (_, pointer) = self.strip(id)?;
        if pointer.kind() != KIND_PTR {
            return None;
        }
        let mut arguments = self.prototype(pointer.size_or_type)?;
        arguments.pop();
        (!arguments.is_empty()).then(|| arguments.split_off(1))
    }

    fn prototype(&self, id: u32) -> Option<Vec<String>> {
        let proto = self.type_at(id)?;
        if proto.kind() != KIND_FUNC_PROTO {
            return None;
        }
        let arguments = (0..proto.len()).map(|index| u32_at(&self.data, proto.tail + 8 * index + 4));
        arguments
            .chain([Some(proto.size_or_type)])
            .map(|id| Some(self.type_name(id?, MAX_DEPTH)))
            .collect()
    }

    /// A type as C writes it, without const, volatile and the like: `struct folio *`, `gfp_t`.
    fn type_name(&self, id: u32, depth: u32) -> String {
        let Some(found) = self.type_at(id).filter(|_| depth > 0) else {
            return "?".to_owned();
        };
        let own = self.string(found.name).unwrap_or("?");
        match found.kind() {
            0 => "void".to_owned(),
            KIND_PTR => {
                let target = self.type_name(found.size_or_type, depth - 1);
                if target.ends_with('*') {
                    format!("{target}*")
                } else {
                    format!("{target} *")
                }
            }
            KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => self.type_name(found.size_or_type, depth - 1),
            KIND_STRUCT => format!("struct {own}"),
            KIND_UNION => format!("union {own}"),
            KIND_ENUM | KIND_ENUM64 => format!("enum {own}"),
            KIND_FWD => format!("{} {own}", if found.kind_flag() { "union" } else { "struct" }),
            KIND_FUNC_PROTO => "function".to_owned(),
            KIND_ARRAY => "array".to_owned(),
            _ => own.to_owned(),
        }
    }
}

fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    let bytes = data.get(offset..offset.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    let bytes = data.get(offset..offset.checked_add(2)?)?;
    bytes.try_into().ok().map(u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The machine that runs the tests shows BTF, or headroom could not run on it.
    fn running() -> KernelTypes {
        KernelTypes::of_running_kernel(Path::new("/")).expect("the running kernel shows BTF")
    }

    #[test]
    fn finds_fields_through_embedded_and_anonymous_members() {
        let types = running();
        assert_eq!(types.field_offset("mem_cgroup.css"), Some(0));
        assert_eq!(types.field_offset("page_counter.usage"), Some(0));
        assert_eq!(types.field_offset("oom_control.chosen"), Some(40));
        assert!(
            types.field_offset("folio.memcg_data").is_some(),
            "a member of two anonymous levels"
        );
        assert_eq!(types.field_offset("mem_cgroup.no_such_field"), None);
    }

    #[test]
    fn finds_enumerators_and_prototypes() {
        let types = running();
        assert_eq!(types.enum_value("NR_INACTIVE_ANON"), Some(0));
        assert_eq!(
            types.function("oom_kill_process"),
            Some(vec![
                "struct oom_control *".to_owned(),
                "char *".to_owned(),
                "void".to_owned()
            ])
        );
        assert_eq!(
            types.tracepoint("task_rename"),
            Some(vec!["struct task_struct *".to_owned(), "char *".to_owned()])
        );
        assert_eq!(types.tracepoint("no_such_tracepoint"), None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = KernelTypes::of_running_kernel(Path::new("/no/such/root")).unwrap_err();
        assert!(
            error.to_string().contains("/no/such/root/sys/kernel/btf/vmlinux"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
            if header && bytes.len() > 24 {
                bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
                for (index, value) in [(4, 24_u32), (8, 0), (12, 200), (16, 200), (20, 100)] {
                    bytes[index..index + 4].copy_from_slice(&value.to_le_bytes());
                }
            }
            if let Ok(types) = KernelTypes::parse(bytes) {
                for id in 0..u32::try_from(types.types.len()).unwrap_or(0) {
                    types.type_name(id, MAX_DEPTH);
                    types.prototype(id);
                    types.member(id, "x", MAX_DEPTH);
                }
            }
        }
    }
}
