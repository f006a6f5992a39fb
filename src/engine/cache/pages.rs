//! Which cache pages belong to which sequence. Pages are reference counted, so sequences can share a prefix.

use crate::error::{Error, ErrorKind, Result};

/// The page pool of one executor.
#[derive(Debug)]
pub struct PagePool {
    page_size: u32,
    counts: Vec<u32>,
    free: Vec<u32>,
}

impl PagePool {
    /// All pages free.
    pub fn new(page_size: u32, num_pages: u32) -> Self {
        Self {
            page_size,
            counts: vec![0; num_pages as usize],
            free: (0..num_pages).rev().collect(),
        }
    }

    /// Pages that nobody holds.
    pub fn available(&self) -> u32 {
        self.free.len() as u32
    }

    /// Positions per page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Pages that `pages` lack to hold `positions`.
    pub fn missing(&self, pages: &[u32], positions: u32) -> u32 {
        positions
            .div_ceil(self.page_size)
            .saturating_sub(pages.len() as u32)
    }

    /// Extends `pages` until they hold `positions`. Takes nothing if it cannot take all.
    pub fn grow(&mut self, pages: &mut Vec<u32>, positions: u32) -> Result<()> {
        let missing = self.missing(pages, positions);
        if missing > self.available() {
            return Err(Error::new(
                ErrorKind::ContextOverflow,
                format!(
                    "{positions} positions need {missing} more cache pages of {} positions and {} are free; ask for \
                     fewer tokens or sequences, or load the model with a larger max_context",
                    self.page_size,
                    self.available()
                ),
            ));
        }
        for _ in 0..missing {
            if let Some(page) = self.free.pop() {
                self.counts[page as usize] = 1;
                pages.push(page);
            }
        }
        Ok(())
    }

    /// How many hold a page.
    pub fn holders(&self, page: u32) -> u32 {
        self.counts[page as usize]
    }

    /// Holds a page once more.
    pub fn hold(&mut self, page: u32) {
        self.counts[page as usize] += 1;
    }

    /// Gives a page up; the last holder's is free.
    pub fn release(&mut self, page: u32) {
        let count = &mut self.counts[page as usize];
        *count -= 1;
        if *count == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_are_freed_by_the_last_holder() {
        let mut pool = PagePool::new(32, 4);
        let mut a = Vec::new();
        pool.grow(&mut a, 70).expect("three pages are free");
        assert_eq!((a.len(), pool.available()), (3, 1));
        let mut b = a[..2].to_vec();
        b.iter().for_each(|page| pool.hold(*page));
        pool.grow(&mut b, 90).expect("one page is free");
        assert_eq!(pool.available(), 0);
        a.iter().for_each(|page| pool.release(*page));
        assert_eq!((pool.available(), pool.holders(b[0])), (1, 1));
        b.iter().for_each(|page| pool.release(*page));
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn a_request_that_does_not_fit_takes_nothing() {
        let mut pool = PagePool::new(32, 2);
        let mut a = Vec::new();
        assert_eq!(
            pool.grow(&mut a, 65).expect_err("needs three").kind(),
            ErrorKind::ContextOverflow
        );
        assert_eq!((a.len(), pool.available()), (0, 2));
    }
}
