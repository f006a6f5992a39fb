//! GPT-2's spelling of bytes: each of the 256 bytes is written as one printable character, so that a byte-level
//! vocabulary is ordinary text. Printable Latin-1 stands for itself, the other 68 bytes for U+0100 onwards
//! (openai/gpt-2 `encoder.py`, `bytes_to_unicode`).

/// Bytes that are not printable Latin-1 and so are spelled U+0100 + their place among themselves.
const SHIFTED: usize = 68;

/// Whether `byte` is spelled by the character of the same number.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The character of each byte.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut shifted) = (0, 0);
    while byte < 256 {
        if is_plain(byte as u8) {
            chars[byte] = byte as u8 as char;
        } else {
            chars[byte] = match char::from_u32(0x100 + shifted) {
                Some(c) => c,
                None => panic!("U+0100 to U+0143 are characters"),
            };
            shifted += 1;
        }
        byte += 1;
    }
    chars
};

/// The byte of each character from U+0100 onwards.
const SHIFTED_BYTES: [u8; SHIFTED] = {
    let mut bytes = [0; SHIFTED];
    let (mut byte, mut shifted) = (0, 0);
    while byte < 256 {
        if !is_plain(byte as u8) {
            bytes[shifted] = byte as u8;
            shifted += 1;
        }
        byte += 1;
    }
    bytes
};

/// How `byte` is spelled.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[byte as usize]
}

/// The byte that `c` spells.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match u8::try_from(c) {
        Ok(byte) => is_plain(byte).then_some(byte),
        Err(_) => SHIFTED_BYTES.get((c as usize).checked_sub(0x100)?).copied(),
    }
}

/// The bytes that `text` spells, or `None` if a character of it spells none.
pub(super) fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

#[cfg(test)]
mod tests {
    use super::{byte_of, char_of};

    #[test]
    fn every_byte_has_its_own_character() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(
            (char_of(b' '), char_of(b'\n'), char_of(b'A'), char_of(0xad)),
            ('Ġ', 'Ċ', 'A', '\u{143}')
        );
        assert_eq!(
            (byte_of(' '), byte_of('\u{144}'), byte_of('世')),
            (None, None, None)
        );
    }
}
