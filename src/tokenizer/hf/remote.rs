//! `tokenizer.json` where the `tokenizers` crate is not linked in: another module has it, which is loaded when it is needed.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::{Adjustments, Description, Parts};
use crate::error::{Error, Result};
use crate::format::LocalBoxFuture;

/// What another module makes of a `tokenizer.json`.
pub struct Opened {
    /// `json::describe`
    pub description: Vec<u8>,
    /// Its pipeline.
    pub pipeline: Box<dyn Encode>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// A pipeline in another module.
pub trait Encode {
    /// The ids of `text`; see `json::Pipeline::encode`.
    ///
    /// # Errors
    ///
    /// Those of `json::Pipeline::encode`.
    fn encode(&self, text: &str, parse_special: bool, add_special: bool) -> Result<Vec<u32>>;
}

/// Loads the module, and hands it a `tokenizer.json` and [`Adjustments`] as JSON.
pub type Opener = dyn Fn(&[u8], &str) -> LocalBoxFuture<'static, Result<Opened>>;

thread_local! {
    static OPENER: RefCell<Option<Rc<Opener>>> = const { RefCell::new(None) };
}

/// Says how a `tokenizer.json` is read from now on.
pub fn set_opener(opener: Rc<Opener>) {
    OPENER.set(Some(opener));
}

/// A `tokenizer.json`'s pipeline.
pub(in crate::tokenizer) struct Pipeline(Box<dyn Encode>);

impl Pipeline {
    /// Appends the ids of `text`.
    ///
    /// # Errors
    ///
    /// Those of [`Encode::encode`].
    pub(in crate::tokenizer) fn encode(
        &self,
        text: &str,
        parse_special: bool,
        add_special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        ids.extend(self.0.encode(text, parse_special, add_special)?);
        Ok(())
    }
}

/// Reads a `tokenizer.json`.
pub(super) async fn open(bytes: &[u8], adjustments: &Adjustments) -> Result<Parts> {
    let opener = OPENER.with_borrow(Clone::clone).ok_or_else(|| {
        Error::unsupported(
            "this build reads no tokenizer.json; build it with the feature tokenizer-json, or give the model's tokenizer.model",
        )
    })?;
    let adjustments = serde_json::to_string(adjustments)
        .map_err(|error| Error::internal("adjustments are no JSON").with_source(error))?;
    let Opened {
        description,
        pipeline,
    } = opener(bytes, &adjustments).await?;
    let described: Description<'_> = serde_json::from_slice(&description)
        .map_err(|error| Error::internal("a tokenizer's description").with_source(error))?;
    described.parts(Pipeline(pipeline))
}
