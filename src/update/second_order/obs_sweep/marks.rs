//! Runs of marks, from a mask to a block of columns and back.

use crate::kernels::MarkWriter;
use crate::mask::{Mask, MaskRow, words_for};

impl Mask {
    /// Copies the marks of a row from column `start` on to `len` bits of `words`.
    pub(super) fn copy_run(&self, row: usize, start: usize, len: usize, words: &mut [u64]) {
        let marks = &self.row_words(row)[start / 64..];
        let shift = start % 64;
        for (i, word) in words.iter_mut().enumerate().take(words_for(len)) {
            let next = marks.get(i + 1).copied().unwrap_or(0);
            // Shifting by all 64 bits is not defined.
            *word = marks[i] >> shift | (next << 1) << (63 - shift);
        }
        if !len.is_multiple_of(64) {
            words[len / 64] &= (1 << (len % 64)) - 1;
        }
    }
}

impl MaskRow<'_> {
    /// Marks the columns from `start` on whose bits in `words` are set: `len` bits, zeros after
    /// them.
    pub(super) fn set_run(&mut self, start: usize, len: usize, words: &[u64]) {
        let mut writer = MarkWriter::new(self.words_mut(), start);
        for (i, &word) in words[..words_for(len)].iter().enumerate() {
            writer.write(word, (len - i * 64).min(64));
        }
    }
}
