//! Cache pages of prompts and ended sequences, by their tokens: what a new sequence need not compute again.
//!
//! A tree: a node is a page, and its path spells the tokens before it. Whole pages are shared; the last page of an
//! ended sequence may be filled in part, and goes to whoever continues it. The tree holds each of its pages once;
//! leaves that nobody else holds are evicted, the least recently used first.

use super::pages::PagePool;
use std::collections::BTreeMap;

/// The pages whose contents are known.
#[derive(Debug, Default)]
pub struct PrefixTree {
    /// By page.
    nodes: BTreeMap<u32, Node>,
    /// Pages that hold first tokens.
    roots: Vec<u32>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Node {
    /// Whose keys and values the page holds: as many as a page has positions, or fewer in a leaf.
    tokens: Vec<u32>,
    parent: Option<u32>,
    children: Vec<u32>,
    last_used: u64,
}

impl PrefixTree {
    /// Pages that hold the beginning of `tokens`, held for the caller, and how many positions of them are valid. The
    /// caller writes from there on.
    pub fn take(&mut self, tokens: &[u32], pool: &mut PagePool) -> (Vec<u32>, u32) {
        self.clock += 1;
        let mut pages = self.walk(tokens, pool.page_size());
        let mut valid = pages.len() * pool.page_size() as usize;
        for page in &pages {
            pool.hold(*page);
            if let Some(node) = self.nodes.get_mut(page) {
                node.last_used = self.clock;
            }
        }
        // A page of which only a part is right can be written to by one alone, and leaves the tree: where it holds
        // little else.
        let right = |page: &u32| (common(&self.nodes[page].tokens, &tokens[valid..]), *page);
        if let Some((length, page)) = self.children(pages.last()).iter().map(right).max() {
            let node = &self.nodes[&page];
            if length > 0
                && 2 * length >= node.tokens.len()
                && node.children.is_empty()
                && pool.holders(page) == 1
            {
                self.remove(page);
                pages.push(page);
                valid += length;
            }
        }
        (pages, valid as u32)
    }

    /// Positions in whole pages that [`PrefixTree::take`] would find.
    pub fn shared(&self, tokens: &[u32], page_size: u32) -> u32 {
        self.walk(tokens, page_size).len() as u32 * page_size
    }

    /// Learns that `pages` hold these tokens, from position 0 on. A page with tokens that another holds already is not
    /// taken.
    pub fn insert(&mut self, tokens: &[u32], pages: &[u32], pool: &mut PagePool) {
        self.clock += 1;
        let mut parent = None;
        for (tokens, page) in tokens.chunks(pool.page_size() as usize).zip(pages) {
            let known = |known: &&u32| self.nodes[*known].tokens.starts_with(tokens);
            let page = match self.children(parent.as_ref()).iter().find(known) {
                Some(known) => *known,
                None => {
                    pool.hold(*page);
                    let node = Node {
                        tokens: tokens.to_vec(),
                        parent,
                        children: Vec::new(),
                        last_used: 0,
                    };
                    self.nodes.insert(*page, node);
                    self.siblings(parent).push(*page);
                    *page
                }
            };
            if let Some(node) = self.nodes.get_mut(&page) {
                node.last_used = self.clock;
            }
            parent = Some(page);
        }
    }

    /// Gives up the least recently used leaf whose page nobody else holds. False if there is none.
    pub fn evict(&mut self, pool: &mut PagePool) -> bool {
        let idle =
            |(page, node): &(&u32, &Node)| node.children.is_empty() && pool.holders(**page) == 1;
        let oldest = self
            .nodes
            .iter()
            .filter(idle)
            .min_by_key(|(_, node)| node.last_used);
        let Some(page) = oldest.map(|(page, _)| *page) else {
            return false;
        };
        self.remove(page);
        pool.release(page);
        true
    }

    /// Pages that nobody else holds: what [`PrefixTree::evict`] can give up, one after the other.
    pub fn idle(&self, pool: &PagePool) -> u32 {
        self.nodes
            .keys()
            .filter(|page| pool.holders(**page) == 1)
            .count() as u32
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut PagePool) {
        self.nodes.keys().for_each(|page| pool.release(*page));
        self.nodes.clear();
        self.roots.clear();
    }

    /// The whole pages that hold the beginning of `tokens`.
    fn walk(&self, tokens: &[u32], page_size: u32) -> Vec<u32> {
        let mut pages: Vec<u32> = Vec::new();
        for tokens in tokens.chunks_exact(page_size as usize) {
            let next = self
                .children(pages.last())
                .iter()
                .find(|page| self.nodes[*page].tokens == tokens);
            match next {
                Some(page) => pages.push(*page),
                None => break,
            }
        }
        pages
    }

    fn children(&self, parent: Option<&u32>) -> &[u32] {
        parent.map_or(&self.roots, |page| &self.nodes[page].children)
    }

    fn siblings(&mut self, parent: Option<u32>) -> &mut Vec<u32> {
        match parent.and_then(|page| self.nodes.get_mut(&page)) {
            Some(node) => &mut node.children,
            None => &mut self.roots,
        }
    }

    fn remove(&mut self, page: u32) {
        if let Some(node) = self.nodes.remove(&page) {
            self.siblings(node.parent)
                .retain(|sibling| *sibling != page);
        }
    }
}

/// How many tokens two lists begin with in common.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of pages of 4, and the pages of an ended sequence in it.
    fn ended(tree: &mut PrefixTree, pool: &mut PagePool, tokens: &[u32]) -> Vec<u32> {
        let (mut pages, _) = tree.take(tokens, pool);
        pool.grow(&mut pages, tokens.len() as u32)
            .expect("pages are free");
        tree.insert(tokens, &pages, pool);
        pages.iter().for_each(|page| pool.release(*page));
        pages
    }

    #[test]
    fn whole_pages_are_shared_and_a_last_one_is_continued() {
        let (mut tree, mut pool) = (PrefixTree::default(), PagePool::new(4, 8));
        let first = ended(&mut tree, &mut pool, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(pool.available(), 6, "the tree holds two pages");
        // Two that go on from it: both have the whole page, one the part.
        let (one, valid) = tree.take(&[1, 2, 3, 4, 5, 6, 7], &mut pool);
        assert_eq!((one.as_slice(), valid), (&first[..], 6));
        let (other, valid) = tree.take(&[1, 2, 3, 4, 5, 6, 8], &mut pool);
        assert_eq!((other.as_slice(), valid), (&first[..1], 4));
        assert_eq!((pool.holders(first[0]), pool.holders(first[1])), (3, 1));
        // What parts ways within the first page shares nothing, and does not take the page from the others.
        assert_eq!(tree.take(&[1, 2, 3, 9], &mut pool), (Vec::new(), 0));
    }

    #[test]
    fn a_page_that_holds_much_else_is_not_taken() {
        let (mut tree, mut pool) = (PrefixTree::default(), PagePool::new(4, 8));
        ended(&mut tree, &mut pool, &[1, 2, 3, 4]);
        assert_eq!(tree.take(&[1, 9], &mut pool).1, 0);
        assert_eq!(tree.shared(&[1, 2, 3, 4, 5], 4), 4);
        assert_eq!(tree.take(&[1, 2, 9], &mut pool).1, 2);
        assert_eq!(tree.shared(&[1, 2, 3, 4, 5], 4), 0, "it was taken");
    }

    #[test]
    fn the_least_recently_used_leaf_goes_first_and_held_ones_stay() {
        let (mut tree, mut pool) = (PrefixTree::default(), PagePool::new(4, 8));
        ended(&mut tree, &mut pool, &[1, 1, 1, 1, 2, 2, 2, 2]);
        ended(&mut tree, &mut pool, &[1, 1, 1, 1, 3, 3, 3, 3]);
        ended(&mut tree, &mut pool, &[4, 4, 4, 4]);
        assert_eq!(pool.available(), 4);
        let (held, _) = tree.take(&[4, 4, 4, 4, 5], &mut pool);
        assert!(tree.evict(&mut pool));
        assert_eq!(tree.shared(&[1, 1, 1, 1, 2, 2, 2, 2], 4), 4);
        assert_eq!(tree.shared(&[1, 1, 1, 1, 3, 3, 3, 3], 4), 8);
        assert!(tree.evict(&mut pool) && tree.evict(&mut pool));
        assert!(!tree.evict(&mut pool), "the last page is held");
        assert_eq!((pool.available(), held.len()), (7, 1));
        pool.release(held[0]);
        assert!(tree.evict(&mut pool));
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn tokens_that_are_known_are_not_held_twice() {
        let (mut tree, mut pool) = (PrefixTree::default(), PagePool::new(4, 8));
        ended(&mut tree, &mut pool, &[1, 2, 3, 4, 5]);
        let mut pages = Vec::new();
        pool.grow(&mut pages, 5).expect("pages are free");
        tree.insert(&[1, 2, 3, 4, 5], &pages, &mut pool);
        pages.iter().for_each(|page| pool.release(*page));
        assert_eq!(pool.available(), 6);
    }
}
