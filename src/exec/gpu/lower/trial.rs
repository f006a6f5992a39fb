//! Trials of the self-test: for a dispatch of the model, a small plan with random weights that runs the same kernel.
//! The file that lowers an operation declares its trial.

use super::{Dispatch, Lowered};
use crate::error::{Error, Result};
use crate::exec::{Executor, Want};
use crate::plan::{
    History, Linear, Norm, Op, Penalties, Plan, Role, Sampling, TensorId, TokenMask, ValueId,
};
use crate::quant::{DType, Random, sample_rows};
use std::rc::Rc;

/// Values per row of the matrices: two blocks of any type.
pub const WIDTH: u32 = 512;
/// Tokens of the vocabulary, but where the sampler is tried.
pub const VOCABULARY: u32 = 72;
/// Positions of the sequence; more than attention takes in one split.
pub const CONTEXT: u32 = 160;

/// The plan of a trial, its weights, and what is compared.
pub struct TrialPlan {
    /// What runs.
    pub plan: Plan,
    /// The norm of the residual stream.
    pub norm: Norm,
    /// Values that are compared.
    pub outputs: Vec<Role>,
    /// A value that is set to random numbers, beside the residual stream.
    pub input: Option<Role>,
    /// What each step gives back.
    pub want: Want,
    /// Where each step's rows start.
    pub steps: Vec<u32>,
    /// The plan's other operations use the kernels of the model, which are compiled anyway. Else all but the kernel in
    /// question are the plain ones.
    pub as_model: bool,
    weights: Vec<Vec<u8>>,
    random: Random,
}

impl std::fmt::Debug for TrialPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrialPlan")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl TrialPlan {
    fn new(real: &Plan) -> Result<Self> {
        let mut plan = Plan::new(WIDTH, VOCABULARY, CONTEXT);
        plan.ropes.clone_from(&real.ropes);
        let mut trial = Self {
            plan,
            norm: Norm {
                weight: TensorId(0),
                eps: 1e-5,
            },
            outputs: vec![Role::Residual],
            input: None,
            want: Want::NOTHING,
            steps: vec![0],
            as_model: false,
            weights: Vec::new(),
            random: Random(1),
        };
        trial.norm.weight = trial.tensor(DType::F32, 1, WIDTH)?;
        Ok(trial)
    }

    /// A tensor of random weights.
    pub(super) fn tensor(&mut self, dtype: DType, rows: u32, cols: u32) -> Result<TensorId> {
        let (rows, cols) = (u64::from(rows), u64::from(cols));
        self.weights.push(sample_rows(
            dtype,
            rows,
            cols,
            2.0 / (cols as f32).sqrt(),
            &mut self.random,
        )?);
        Ok(self.plan.tensor_spec("trial", dtype, rows, cols))
    }

    /// A matrix of random weights.
    pub(super) fn linear(&mut self, dtype: DType, rows: u32, cols: u32) -> Result<Linear> {
        Ok(Linear {
            weight: self.tensor(dtype, rows, cols)?,
            bias: None,
        })
    }

    /// The residual stream that the trial begins with.
    pub(super) fn stream(&mut self) -> ValueId {
        self.plan.value(Role::Residual, WIDTH)
    }

    /// Random activations between -1 and 1.
    pub fn values(&mut self, n: usize) -> Vec<f32> {
        self.random.values(n)
    }

    /// Loads the weights, and settings with which the sampler does all that it can at once.
    ///
    /// # Errors
    /// What the executor finds wrong.
    pub fn load(&self, executor: &mut dyn Executor) -> Result<()> {
        for (i, bytes) in self.weights.iter().enumerate() {
            executor.load_rows(TensorId(i), 0, bytes)?;
        }
        let pages: Vec<u32> = (0..executor.limits().num_pages).rev().collect();
        executor.set_pages(0, &pages)?;
        // All that the sampler can do at once.
        let vocab = self.plan.vocab_size;
        let mut mask = TokenMask::new(vocab, true);
        (0..vocab).step_by(3).for_each(|id| mask.set(id, false));
        let sampling = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.01,
            seed: 7,
            penalties: Penalties {
                repetition: 1.2,
                presence: 0.5,
                frequency: 0.25,
            },
            bias: Some(Rc::new([(1, 2.0), (5, -3.0)])),
            mask: Some(Rc::new(mask)),
        };
        executor.set_sampling(
            0,
            &sampling,
            History {
                prompt: &[1, 2, 4],
                generated: &[7, 8, 7],
            },
        )
    }
}

impl Lowered {
    /// The trial of one of the plan's dispatches.
    ///
    /// # Errors
    /// `Internal` for an operation without a trial.
    pub fn trial(&self, dispatch: &Dispatch) -> Result<TrialPlan> {
        let mut trial = TrialPlan::new(&self.plan)?;
        match &self.plan.ops[dispatch.op] {
            Op::QkvRope { .. } | Op::QkNorm { .. } | Op::Attention { .. } => {
                self.attention_trial(dispatch.op, &mut trial)?;
            }
            Op::MoeRoute { .. } | Op::MoeGateUpSilu { .. } | Op::MoeDownResidual { .. } => {
                self.experts_trial(dispatch.op, &mut trial)?;
            }
            Op::Embed { .. }
            | Op::Residual { .. }
            | Op::GateUpSilu { .. }
            | Op::LmHead { .. }
            | Op::Sample { .. } => self.dense_trial(dispatch, &mut trial)?,
            fine => return Err(Error::internal(format!("no trial for {}", fine.name()))),
        }
        Ok(trial)
    }
}
