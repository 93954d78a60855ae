//! core: which texts of a call go through the network together.
//!
//! A slice costs its rows times its longest, so texts of unlike lengths in one slice are mostly padding.

/// Tokens, padding included, that go through the network together. A call of more goes in slices, since the widest layer
/// and the attention of 64 texts of 256 tokens already take 300 MB.
const SLICE_TOKENS_MAX: usize = 64 * 256;

/// Padding that a slice may hold for the sake of being larger, in hundredths of its tokens. A call on a processor costs
/// little beside its tokens, so that a few rows together are as good as many.
const PADDING_PERCENT_MAX: usize = 15;

/// A slice as the rows of a call, by their places, and the length to which they are padded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) rows: Vec<usize>,
    pub(super) width: usize,
}

/// All rows in their order, padded to the longest.
pub(super) fn in_order(lengths: &[usize]) -> Vec<Slice> {
    let width = lengths.iter().copied().max().unwrap_or(0).max(1);
    let places: Vec<usize> = (0..lengths.len()).collect();
    places.chunks((SLICE_TOKENS_MAX / width).max(1)).map(|rows| Slice { rows: rows.to_vec(), width }).collect()
}

/// Rows of similar length together, the shortest first.
pub(super) fn by_length(lengths: &[usize]) -> Vec<Slice> {
    let mut places: Vec<usize> = (0..lengths.len()).collect();
    places.sort_by_key(|&place| lengths[place]);
    let mut slices: Vec<Slice> = Vec::new();
    let mut tokens = 0;
    for place in places {
        let length = lengths[place];
        match slices.last_mut().filter(|slice| has_room(slice.rows.len(), tokens, length)) {
            Some(slice) => {
                slice.rows.push(place);
                slice.width = length;
                tokens += length;
            }
            None => {
                slices.push(Slice { rows: vec![place], width: length });
                tokens = length;
            }
        }
    }
    slices
}

/// Whether a slice of so many rows and tokens may take one of `length` tokens, to which all of it is padded then.
const fn has_room(rows: usize, tokens: usize, length: usize) -> bool {
    let size = (rows + 1) * length;
    size <= SLICE_TOKENS_MAX && (size - tokens - length) * 100 <= size * PADDING_PERCENT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(slices: &[Slice]) -> Vec<&[usize]> {
        slices.iter().map(|slice| slice.rows.as_slice()).collect()
    }

    #[test]
    fn alike_lengths_share_a_slice_and_unlike_ones_do_not() {
        let slices = by_length(&[10, 200, 9, 210, 10]);
        assert_eq!(rows(&slices), [&[2, 0, 4][..], &[1, 3]]);
        assert_eq!(slices.iter().map(|slice| slice.width).collect::<Vec<_>>(), [10, 210]);
    }

    #[test]
    fn every_row_is_in_one_slice_of_bounded_size_and_padding() {
        let lengths: Vec<usize> = (0..1_000).map(|row| 2 + row * 7_919 % 255).collect();
        let slices = by_length(&lengths);
        let mut seen: Vec<usize> = slices.iter().flat_map(|slice| slice.rows.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
        for slice in &slices {
            let (size, tokens) = (slice.rows.len() * slice.width, slice.rows.iter().map(|&row| lengths[row]).sum::<usize>());
            assert!(size <= SLICE_TOKENS_MAX && (size - tokens) * 100 <= size * PADDING_PERCENT_MAX, "{slice:?}");
        }
    }

    #[test]
    fn in_order_all_are_padded_to_the_longest() {
        let mut lengths = vec![256; 65];
        lengths.push(7);
        let slices = in_order(&lengths);
        assert_eq!(slices.iter().map(|slice| (slice.rows.len(), slice.width)).collect::<Vec<_>>(), [(64, 256), (2, 256)]);
        assert_eq!((in_order(&[]), by_length(&[])), (vec![], vec![]));
    }
}
