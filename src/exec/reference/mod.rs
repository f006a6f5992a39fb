//! The plan in plain scalar Rust with f64 accumulation: the truth that the other executors are tested against.
//!
//! [`ops`] holds the arithmetic; this file says what each operation of a plan reads and writes.

pub mod ops;

use crate::error::{Error, Result};
use crate::exec::host::{self, Host, HostExecutor, Table};
use crate::exec::{Executor, ExecutorInfo, Inspect, Limits, Pending, Step};
use crate::plan::{
    self, Gating, History, Input, Linear, Op, Plan, Role, Row, Sampling, TensorId, TokenMask, fine,
    route,
};
use futures_core::future::LocalBoxFuture;
use ops::{Cache, Matrix};
use std::rc::Rc;

/// Runs a plan on the processor, one thread, no SIMD.
pub struct ReferenceExecutor {
    /// Stored bytes of each tensor, in its own type.
    tensors: Vec<Vec<u8>>,
    /// One per [`Plan::caches`].
    caches: Vec<Cache>,
    host: Host,
}

impl std::fmt::Debug for ReferenceExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReferenceExecutor").finish_non_exhaustive()
    }
}

impl ReferenceExecutor {
    /// Allocates weights and cache. `limits` are taken as given.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ModelTooLarge`](crate::error::ErrorKind::ModelTooLarge) where the weights do not fit the memory, and the errors of
    /// [`Host::new`].
    pub fn new(plan: Plan, limits: Limits) -> Result<Self> {
        let mut tensors = Vec::with_capacity(plan.tensors.len());
        for spec in &plan.tensors {
            let len = usize::try_from(spec.bytes())
                .ok()
                .filter(|n| *n <= isize::MAX as usize);
            let mut bytes = Vec::new();
            len.and_then(|len| {
                bytes
                    .try_reserve_exact(len)
                    .ok()
                    .map(|()| bytes.resize(len, 0))
            })
            .ok_or_else(|| {
                Error::new(
                    crate::error::ErrorKind::ModelTooLarge,
                    format!(
                        "the weights ({} MB) do not fit this program's memory",
                        plan.weight_bytes() >> 20
                    ),
                )
            })?;
            tensors.push(bytes);
        }
        let caches = plan
            .caches
            .iter()
            .map(|spec| Cache::new(*spec, limits.page_size, limits.num_pages))
            .collect();
        Ok(Self {
            tensors,
            caches,
            host: Host::new(Rc::new(plan), limits)?,
        })
    }

    fn matrix(&self, id: TensorId) -> Matrix<'_> {
        let spec = self.host.plan.tensor(id);
        Matrix {
            dtype: spec.dtype,
            rows: spec.rows as usize,
            cols: spec.cols as usize,
            bytes: &self.tensors[id.0],
        }
    }

    fn linear(&self, linear: Linear, input: &[f32]) -> Result<Vec<f32>> {
        let bias = linear.bias.map(|id| self.vector(id)).transpose()?;
        ops::linear(&self.matrix(linear.weight), bias.as_deref(), input)
    }

    /// The input of an operation, normalised where it says so.
    fn input(&self, input: Input, x: &[f32]) -> Result<Vec<f32>> {
        match input.norm {
            Some(norm) => Ok(ops::rms_norm(x, &self.vector(norm.weight)?, norm.eps)),
            None => Ok(x.to_vec()),
        }
    }
}

impl HostExecutor for ReferenceExecutor {
    fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    fn begin(&mut self, _rows: &[Row]) -> Result<()> {
        Ok(())
    }

    fn vector(&self, id: TensorId) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.matrix(id).row(0, &mut out)?;
        Ok(out)
    }

    fn cached(
        &self,
        cache: usize,
        which: usize,
        kv_head: usize,
        row: Row,
        out: &mut [f32],
    ) -> Result<()> {
        self.caches[cache].get(
            &self.host.pages[row.seq as usize],
            which,
            kv_head,
            row.pos,
            out,
        )
    }

    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    fn run(&mut self, op: &Op, table: &mut Table, rows: &[Row], heads: &[u32]) -> Result<()> {
        let hidden = self.host.plan.hidden_size as usize;
        let (out, values) = match op {
            Op::Embed { table, out } => (out, ops::embed(&self.matrix(*table), rows)?),
            Op::QkvRope {
                input,
                q,
                k,
                v,
                heads,
                rope,
                cache,
                query,
            } => {
                let input = self.input(*input, table.get(input.x))?;
                let mut q = self.linear(*q, &input)?;
                let mut k = self.linear(*k, &input)?;
                let v = self.linear(*v, &input)?;
                if let Some(rope) = rope {
                    let rope = &self.host.plan.ropes[*rope];
                    fine::rope(&mut q, rows, heads.heads, heads.head_dim, rope);
                    fine::rope(&mut k, rows, heads.kv_heads, heads.head_dim, rope);
                }
                ops::store(&mut self.caches[*cache], rows, &self.host.pages, &k, &v)?;
                (query, q)
            }
            Op::StoreKv {
                key, value, cache, ..
            } => {
                let (k, v) = (table.get(*key), table.get(*value));
                return ops::store(&mut self.caches[*cache], rows, &self.host.pages, k, v);
            }
            Op::QkNorm {
                query,
                out,
                heads,
                cache,
                eps,
                weights,
                rope,
            } => {
                let weights = weights
                    .map(|ids| Ok::<_, Error>([self.vector(ids[0])?, self.vector(ids[1])?]))
                    .transpose()?;
                let weight = |which: usize| weights.as_ref().map(|weights| &weights[which][..]);
                let rope = rope.map(|rope| &self.host.plan.ropes[rope]);
                let mut q = table.take(*query);
                fine::head_norm(&mut q, heads.head_dim, *eps, weight(0));
                if let Some(rope) = rope {
                    fine::rope(&mut q, rows, heads.heads, heads.head_dim, rope);
                }
                let cache = &mut self.caches[*cache];
                ops::key_norm(cache, rows, &self.host.pages, *eps, weight(1), rope)?;
                (out, q)
            }
            Op::Attention { query, spec, out } => {
                let cache = &self.caches[spec.cache];
                (
                    out,
                    ops::attention(table.get(*query), cache, rows, &self.host.pages, spec)?,
                )
            }
            Op::Residual {
                input,
                linear,
                x,
                out,
            } => {
                let y = self.linear(*linear, table.get(*input))?;
                let mut x = table.take(*x);
                ops::add(&mut x, &y);
                (out, x)
            }
            Op::GateUpSilu {
                input,
                gate,
                up,
                out,
            } => {
                let input = self.input(*input, table.get(input.x))?;
                (
                    out,
                    fine::silu_mul(&self.linear(*gate, &input)?, &self.linear(*up, &input)?),
                )
            }
            Op::Linears { x, linears } => {
                for (linear, out) in linears {
                    let y = self.linear(*linear, table.get(*x))?;
                    table.put(*out, y);
                }
                return Ok(());
            }
            Op::MoeRoute {
                input,
                router,
                experts,
                out,
            } => {
                let input = self.input(*input, table.get(input.x))?;
                let logits = ops::linear(&self.matrix(*router), None, &input)?;
                let mut routes = Vec::new();
                route(&logits, *experts, &mut routes);
                (out, routes)
            }
            Op::MoeGateUpSilu {
                input,
                routes,
                gate,
                up,
                experts,
                out,
            } => {
                let input = self.input(*input, table.get(input.x))?;
                let mut inner = Vec::new();
                for (i, (expert, weight)) in plan::routes(table.get(*routes)).enumerate() {
                    let x = &input[i / experts.used as usize * hidden..][..hidden];
                    let weight = if experts.gating == Gating::Sigmoid {
                        weight
                    } else {
                        1.0
                    };
                    let [gate, up] = [gate, up].map(|id| {
                        let mut y =
                            ops::linear(&self.matrix(*id).expert(expert, experts.count), None, x)?;
                        y.iter_mut().for_each(|y| *y *= weight);
                        Ok::<_, Error>(y)
                    });
                    inner.extend(fine::silu_mul(&gate?, &up?));
                }
                (out, inner)
            }
            Op::MoeDownResidual {
                input,
                routes,
                down,
                experts,
                x,
                out,
            } => {
                let down = self.matrix(*down);
                let inner = table.get(*input);
                let mut sums = vec![0.0; rows.len() * hidden];
                for (i, (expert, weight)) in plan::routes(table.get(*routes)).enumerate() {
                    let f = &inner[i * down.cols..][..down.cols];
                    let y = ops::linear(&down.expert(expert, experts.count), None, f)?;
                    let weight = if experts.gating == Gating::Softmax {
                        weight
                    } else {
                        1.0
                    };
                    let row = &mut sums[i / experts.used as usize * hidden..][..hidden];
                    row.iter_mut()
                        .zip(y)
                        .for_each(|(sum, y)| *sum += weight * y);
                }
                let mut x = table.take(*x);
                ops::add(&mut x, &sums);
                (out, x)
            }
            Op::LmHead { input, weight, out } => {
                let x = table.get(input.x);
                let picked: Vec<f32> = heads
                    .iter()
                    .flat_map(|h| x[*h as usize * hidden..][..hidden].iter().copied())
                    .collect();
                (
                    out,
                    ops::linear(&self.matrix(*weight), None, &self.input(*input, &picked)?)?,
                )
            }
            other => {
                return Err(Error::internal(format!(
                    "{} on the reference",
                    other.name()
                )));
            }
        };
        table.put(*out, values);
        Ok(())
    }
}

impl Executor for ReferenceExecutor {
    fn info(&self) -> ExecutorInfo {
        ExecutorInfo {
            kind: "reference".into(),
            name: "scalar reference, one thread".into(),
            software: true,
            weight_bytes: self.host.plan.weight_bytes(),
            cache_bytes: self.caches.iter().map(Cache::bytes).sum(),
            cache_type: "f32".into(),
            ..ExecutorInfo::default()
        }
    }

    fn limits(&self) -> Limits {
        self.host.limits
    }

    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()> {
        let at = first_row * self.host.plan.tensor(tensor).row_bytes();
        let target = usize::try_from(at)
            .ok()
            .and_then(|at| self.tensors[tensor.0].get_mut(at..at.checked_add(bytes.len())?))
            .ok_or_else(|| Error::internal("rows beyond the tensor"))?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn flush_loads(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()> {
        self.host.set_pages(seq, pages)
    }

    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()> {
        self.host.set_sampling(seq, sampling, history)
    }

    fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()> {
        self.host.set_mask(seq, mask)
    }

    fn submit(&mut self, step: Step<'_>) -> Result<Pending> {
        host::submit(self, step)
    }
}

impl Inspect for ReferenceExecutor {
    fn poke(&mut self, role: Role, values: &[f32], _norm: Option<TensorId>) -> Result<()> {
        self.host.poke(role, values)
    }

    fn peek(&mut self, role: Role, _rows: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        Box::pin(std::future::ready(self.host.peek(role)))
    }

    fn peek_cache(
        &mut self,
        cache: usize,
        page: u32,
        which: u32,
    ) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let values = self.caches[cache].page(page, which);
        Box::pin(std::future::ready(Ok(values)))
    }
}
