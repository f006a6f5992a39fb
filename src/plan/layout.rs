//! Which values share a buffer: computed once, from where each is last read.

use super::{Plan, Role, ValueId};
use crate::error::{Error, Result};

/// Index of a buffer in [`Layout::buffers`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// A buffer that an executor keeps for values.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BufferSpec {
    /// The role of all its values.
    pub role: Role,
    /// f32 values per row of the widest.
    pub width: u32,
}

/// The buffers of a plan's values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// All buffers.
    pub buffers: Vec<BufferSpec>,
    /// For each value, where it lies.
    of: Vec<BufferId>,
}

impl Layout {
    /// Assigns buffers: a value takes the place of one of its role that nothing reads any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a plan that reads a value before it is written, writes one
    /// twice, or reads one after an operation has overwritten it.
    pub fn new(plan: &Plan) -> Result<Self> {
        let mut last_read = vec![None; plan.values.len()];
        let mut writer = vec![None; plan.values.len()];
        for (at, op) in plan.ops.iter().enumerate() {
            for value in op.reads() {
                last_read[value.0] = Some(at);
            }
            for value in op.writes() {
                if writer[value.0].replace(at).is_some() {
                    return Err(Error::internal(format!(
                        "{} writes {value:?} again",
                        op.name()
                    )));
                }
            }
        }
        let mut layout = Self {
            buffers: Vec::new(),
            of: vec![BufferId(usize::MAX); plan.values.len()],
        };
        let mut free: Vec<BufferId> = Vec::new();
        for (i, value) in plan.values.iter().enumerate() {
            if writer[i].is_none() {
                layout.of[i] = layout.add(value.role, value.width);
            }
        }
        for (at, op) in plan.ops.iter().enumerate() {
            let reads = op.reads();
            for read in &reads {
                if layout.of[read.0].0 == usize::MAX {
                    return Err(Error::internal(format!(
                        "{} reads {read:?} before it is written",
                        op.name()
                    )));
                }
            }
            let replaced = op.in_place();
            for written in op.writes() {
                let value = plan.values[written.0];
                layout.of[written.0] = match replaced {
                    Some((from, to)) if to == written => {
                        if last_read[from.0] != Some(at) {
                            let name = op.name();
                            return Err(Error::internal(format!(
                                "{name} overwrites {from:?}, which is read later"
                            )));
                        }
                        layout.of[from.0]
                    }
                    _ => match free
                        .iter()
                        .position(|buffer| layout.buffers[buffer.0].role == value.role)
                    {
                        Some(found) => free.swap_remove(found),
                        None => layout.add(value.role, value.width),
                    },
                };
                let buffer = &mut layout.buffers[layout.of[written.0].0];
                buffer.width = buffer.width.max(value.width);
            }
            for read in reads {
                let taken = replaced.is_some_and(|(from, _)| from == read);
                if last_read[read.0] == Some(at) && !taken && !free.contains(&layout.of[read.0]) {
                    free.push(layout.of[read.0]);
                }
            }
        }
        Ok(layout)
    }

    /// Where a value lies.
    pub fn of(&self, value: ValueId) -> BufferId {
        self.of[value.0]
    }

    fn add(&mut self, role: Role, width: u32) -> BufferId {
        self.buffers.push(BufferSpec { role, width });
        BufferId(self.buffers.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Linear, TensorId};
    use crate::quant::DType;

    fn stream() -> (Plan, Linear, ValueId) {
        let mut plan = Plan::new(4, 8, 16);
        let weight = plan.tensor_spec("w", DType::F32, 4, 4);
        let x = plan.value(Role::Residual, 4);
        (plan, Linear { weight, bias: None }, x)
    }

    #[test]
    fn a_layer_reuses_the_buffers_of_the_one_before() {
        let (mut plan, linear, mut x) = stream();
        for layer in 0..3 {
            plan.enter_layer(Some(layer));
            let inner = plan.gate_up_silu(x.plain(), linear, linear);
            x = plan.residual(inner, linear, x);
        }
        let layout = Layout::new(&plan).expect("a plan");
        let roles: Vec<Role> = layout.buffers.iter().map(|buffer| buffer.role).collect();
        assert_eq!(roles, [Role::Residual, Role::FeedForward]);
        assert_eq!(layout.of(x), BufferId(0));
    }

    #[test]
    fn what_is_read_later_is_not_overwritten() {
        let (mut plan, linear, x) = stream();
        let a = plan.gate_up_silu(x.plain(), linear, linear);
        let y = plan.residual(a, linear, x);
        let b = plan.gate_up_silu(x.plain(), linear, linear);
        plan.residual(b, linear, y);
        let error = Layout::new(&plan).expect_err("x is gone");
        assert!(error.to_string().contains("read later"), "{error}");
        // Before it is overwritten, the same reads are right, and both activations are kept.
        let (mut plan, linear, x) = stream();
        let a = plan.gate_up_silu(x.plain(), linear, linear);
        let b = plan.gate_up_silu(x.plain(), linear, linear);
        let y = plan.residual(a, linear, x);
        plan.residual(b, linear, y);
        let layout = Layout::new(&plan).expect("a plan");
        assert_ne!(layout.of(a), layout.of(b));
    }

    #[test]
    fn what_is_not_written_is_not_read() {
        let mut plan = Plan::new(4, 8, 16);
        let logits = ValueId(1);
        plan.sample(logits);
        plan.value(Role::Residual, 4);
        let written = plan.value(Role::Logits, 8);
        assert_eq!(written, logits);
        plan.ops.push(crate::plan::Op::LmHead {
            input: ValueId(0).plain(),
            weight: TensorId(0),
            out: logits,
        });
        assert!(Layout::new(&plan).is_err());
    }
}
