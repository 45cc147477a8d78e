//! The eBPF object without programs that this kernel will not be asked to run: aya prepares every program it finds, which
//! takes a while.
//!
//! In: the object (ELF, 64 bits), and the names of sections. Out: a copy in which these have neither name nor type, so that
//! nobody takes them for programs.

use std::mem::{offset_of, size_of};

use object::LittleEndian;
use object::elf::{FileHeader64, SHT_NULL, SectionHeader64};
use object::pod;
use object::read::elf::{FileHeader, SectionHeader};

type Section = SectionHeader64<LittleEndian>;

/// Where a section header has its name and its type: zeros are the empty string, and [`SHT_NULL`].
const NAME_AND_TYPE: usize = offset_of!(Section, sh_flags);
const _: () = assert!(SHT_NULL == 0);

/// A copy of an object, aligned as object files have to be.
pub(super) struct AlignedObject {
    words: Vec<u64>,
    len: usize,
}

impl AlignedObject {
    /// Without the sections of these names and what relocates them. `None` when the object is not as expected.
    pub(super) fn without(object: &[u8], names: &[&str]) -> Option<Self> {
        let header = FileHeader64::<LittleEndian>::parse(object).ok()?;
        let sections = header.section_headers(LittleEndian, object).ok()?;
        let strings = header.section_strings(LittleEndian, object, sections).ok()?;
        let table = usize::try_from(header.e_shoff(LittleEndian)).ok()?;
        let mut words = vec![0; object.len().div_ceil(8)];
        let bytes = pod::bytes_of_slice_mut(&mut words);
        bytes[..object.len()].copy_from_slice(object);
        for (number, section) in sections.iter().enumerate() {
            let name = section.name(LittleEndian, strings).ok()?;
            let programs = name.strip_prefix(b".rel").unwrap_or(name);
            if names.iter().any(|one| one.as_bytes() == programs) {
                let at = table + number * size_of::<Section>();
                bytes.get_mut(at..at + NAME_AND_TYPE)?.fill(0);
            }
        }
        Some(Self { words, len: object.len() })
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &pod::bytes_of_slice(&self.words)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use object::write::{Object, StandardSegment};
    use object::{Architecture, BinaryFormat, Endianness, Object as _, ObjectSection as _, SectionKind};

    use super::*;

    #[test]
    fn the_named_sections_are_struck_out_and_no_others() {
        let mut made = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        for name in ["kprobe", "kretprobe", "fexit"] {
            let segment = made.segment_name(StandardSegment::Text).to_vec();
            let section = made.add_section(segment, name.into(), SectionKind::Text);
            made.append_section_data(section, &[0x95, 0, 0, 0, 0, 0, 0, 0], 8);
        }
        let copy = AlignedObject::without(&made.write().unwrap(), &["kprobe", "fexit"]).unwrap();
        let read = object::File::parse(copy.bytes()).unwrap();
        let text: Vec<&str> = read
            .sections()
            .filter(|section| section.kind() == SectionKind::Text && section.size() > 0)
            .map(|section| section.name().unwrap())
            .collect();
        assert_eq!(text, ["kretprobe"]);
    }

    #[test]
    fn what_is_no_object_has_no_copy() {
        for bytes in [&[][..], b"\x7fELF", &[0; 100]] {
            assert!(AlignedObject::without(bytes, &["kprobe"]).is_none());
        }
    }
}
