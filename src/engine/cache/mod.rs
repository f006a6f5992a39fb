//! Cache pages: which belong to which sequence, and what ended sequences left in them.

mod pages;
mod prefix;

pub(super) use pages::PagePool;
pub(super) use prefix::{PrefixTree, common};
