//! The operations of a plan, over the rows of a step.

use super::{
    Attention, AttentionSpec, CpuExecutor, Error, Experts, Gating, Heads, Linear, Needs, Op, PAGE,
    PlanInput, Product, Result, Row, Shared, Table, TensorId, Weight, Work, ops, plan, route,
    vector_of,
};

/// [`Op::QkNorm`]
struct QkNorm {
    heads: Heads,
    cache: usize,
    eps: f32,
    /// Of queries, of keys.
    weights: Option<[TensorId; 2]>,
    rope: Option<usize>,
}

impl CpuExecutor {
    /// Runs an operation; what needs no matrix and no cache runs in [`host`](crate::exec::host).
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    pub(super) fn operation(
        &mut self,
        op: &Op,
        table: &mut Table,
        rows: &[Row],
        heads: &[u32],
        work: &mut Work,
    ) -> Result<()> {
        // What is read lies in `table`, and so does what is written, once it is put there.
        let written = op.writes().next();
        let mut out = match op {
            Op::Linears { .. } | Op::StoreKv { .. } => Vec::new(),
            _ => written.map(|value| table.take(value)).unwrap_or_default(),
        };
        match op {
            Op::Embed { table: weights, .. } => self.embed(*weights, rows, &mut out)?,
            Op::QkvRope {
                input,
                q,
                k,
                v,
                heads,
                rope,
                cache,
                ..
            } => {
                let x = table.get(input.x);
                self.qkv_rope(
                    *input,
                    x,
                    [q, k, v],
                    *heads,
                    *rope,
                    *cache,
                    rows,
                    work,
                    &mut out,
                )?;
            }
            Op::StoreKv {
                key,
                value,
                heads,
                cache,
            } => {
                self.store(*heads, *cache, rows, table.get(*key), table.get(*value))?;
            }
            Op::QkNorm {
                heads,
                cache,
                eps,
                weights,
                rope,
                ..
            } => {
                let norm = QkNorm {
                    heads: *heads,
                    cache: *cache,
                    eps: *eps,
                    weights: *weights,
                    rope: *rope,
                };
                self.qk_norm(&norm, rows, work, &mut out)?;
            }
            Op::Attention { query, spec, .. } => {
                self.attention(table.get(*query), spec, rows, work, &mut out)?;
            }
            Op::Residual { input, linear, .. } => {
                self.residual(table.get(*input), linear, rows.len(), work, &mut out)?;
            }
            Op::GateUpSilu {
                input, gate, up, ..
            } => {
                self.gate_up_silu(
                    *input,
                    table.get(input.x),
                    gate,
                    up,
                    rows.len(),
                    work,
                    &mut out,
                )?;
            }
            Op::Linears { x, linears } => {
                for (linear, value) in linears {
                    let mut out = table.take(*value);
                    self.linear(table.get(*x), linear, rows.len(), work, &mut out)?;
                    table.put(*value, out);
                }
            }
            Op::MoeRoute {
                input,
                router,
                experts,
                ..
            } => {
                let router = Linear {
                    weight: *router,
                    bias: None,
                };
                let matrix = self.matrix(router.weight)?;
                let Work {
                    input: normed,
                    product,
                    ..
                } = work;
                self.read(
                    normed,
                    *input,
                    table.get(input.x),
                    matrix.needs(),
                    &|t| t,
                    rows.len(),
                )?;
                self.multiply(normed, &[Product::new(matrix, 0, rows.len(), product)])?;
                route(product, *experts, &mut out);
            }
            Op::MoeGateUpSilu {
                input,
                routes,
                gate,
                up,
                experts,
                ..
            } => {
                let (x, routes) = (table.get(input.x), table.get(*routes));
                self.moe_gate_up_silu(*input, x, routes, [*gate, *up], *experts, work, &mut out)?;
            }
            Op::MoeDownResidual {
                input,
                routes,
                down,
                experts,
                ..
            } => {
                let (inner, routes) = (table.get(*input), table.get(*routes));
                self.moe_down_residual(inner, routes, *down, *experts, work, &mut out)?;
            }
            Op::LmHead { input, weight, .. } => {
                let matrix = self.matrix(*weight)?;
                let Work { input: normed, .. } = work;
                let x = table.get(input.x);
                self.read(
                    normed,
                    *input,
                    x,
                    matrix.needs(),
                    &|i| heads[i] as usize,
                    heads.len(),
                )?;
                self.multiply(normed, &[Product::new(matrix, 0, heads.len(), &mut out)])?;
            }
            other => return Err(Error::internal(format!("{} on the CPU", other.name()))),
        }
        match op {
            Op::Linears { .. } | Op::StoreKv { .. } => {}
            _ => written
                .into_iter()
                .for_each(|value| table.put(value, std::mem::take(&mut out))),
        }
        Ok(())
    }

    fn embed(&self, table: TensorId, rows: &[Row], x: &mut Vec<f32>) -> Result<()> {
        let spec = self.host.plan.tensor(table);
        let hidden = spec.cols as usize;
        x.resize(rows.len() * hidden, 0.0);
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(hidden)) {
            match &self.weights[table.0] {
                Weight::Matrix(matrix) => matrix.row(row.token as usize, x)?,
                Weight::Table(bytes) => {
                    let len = spec.row_bytes() as usize;
                    let stored = bytes
                        .get(row.token as usize * len..)
                        .and_then(|b| b.get(..len));
                    spec.dtype.dequantize(
                        stored.ok_or_else(|| Error::internal("a row beyond the table"))?,
                        x,
                    )?;
                }
                Weight::Vector(vector) => x.copy_from_slice(vector),
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the operation has as many parts")]
    fn qkv_rope(
        &mut self,
        input: PlanInput,
        x: &[f32],
        linears: [&Linear; 3],
        heads: Heads,
        rope: Option<usize>,
        cache: usize,
        rows: &[Row],
        work: &mut Work,
        q: &mut Vec<f32>,
    ) -> Result<()> {
        let Work {
            input: normed,
            k,
            v,
            ..
        } = work;
        let matrices = [
            self.matrix(linears[0].weight)?,
            self.matrix(linears[1].weight)?,
            self.matrix(linears[2].weight)?,
        ];
        let needs = matrices
            .iter()
            .fold(Needs::default(), |needs, m| needs.and(m.needs()));
        self.read(normed, input, x, needs, &|t| t, rows.len())?;
        self.multiply(
            normed,
            &[
                Product::new(matrices[0], 0, rows.len(), q),
                Product::new(matrices[1], 0, rows.len(), k),
                Product::new(matrices[2], 0, rows.len(), v),
            ],
        )?;
        for (linear, out) in linears.into_iter().zip([&mut *q, &mut *k, &mut *v]) {
            self.add_bias(linear, out)?;
        }
        if let Some(rope) = rope {
            let d = heads.head_dim as usize;
            let (q_len, k_len) = (heads.heads as usize * d, heads.kv_heads as usize * d);
            let pairs = self.host.plan.ropes[rope].inv_freq.len();
            for t in 0..rows.len() {
                let angles = &work.angles[rope][t * pairs..][..pairs];
                ops::rotate(&mut q[t * q_len..][..q_len], d, angles);
                ops::rotate(&mut k[t * k_len..][..k_len], d, angles);
            }
        }
        self.store(heads, cache, rows, k, v)
    }

    /// Puts `[T, KV, D]` keys and values into the cache.
    fn store(
        &mut self,
        heads: Heads,
        cache: usize,
        rows: &[Row],
        k: &[f32],
        v: &[f32],
    ) -> Result<()> {
        let (d, kv_heads) = (heads.head_dim as usize, heads.kv_heads as usize);
        for (t, row) in rows.iter().enumerate() {
            let (page, slot) = (self.host.page(*row, PAGE)?, row.pos as usize % PAGE);
            for kv in 0..kv_heads {
                let at = (t * kv_heads + kv) * d;
                self.caches[cache].set(page, 0, kv, slot, &k[at..at + d]);
                self.caches[cache].set(page, 1, kv, slot, &v[at..at + d]);
            }
        }
        Ok(())
    }

    fn qk_norm(
        &mut self,
        norm: &QkNorm,
        rows: &[Row],
        work: &mut Work,
        q: &mut [f32],
    ) -> Result<()> {
        let QkNorm {
            heads,
            cache,
            eps,
            weights,
            rope,
        } = *norm;
        let d = heads.head_dim as usize;
        let row_len = heads.heads as usize * d;
        let Self {
            host,
            caches,
            weights: tensors,
            ..
        } = self;
        let weights = match weights {
            Some([q, k]) => Some([vector_of(tensors, q)?, vector_of(tensors, k)?]),
            None => None,
        };
        let one = |head: &mut [f32], which: usize| {
            ops::head_norm(head, eps);
            if let Some(weights) = weights {
                head.iter_mut()
                    .zip(weights[which])
                    .for_each(|(x, w)| *x *= w);
            }
        };
        let Work { k: key, angles, .. } = work;
        key.resize(d, 0.0);
        for (t, row) in rows.iter().enumerate() {
            let angles = rope.map(|rope| {
                let pairs = host.plan.ropes[rope].inv_freq.len();
                &angles[rope][t * pairs..][..pairs]
            });
            let q = &mut q[t * row_len..][..row_len];
            q.chunks_exact_mut(d).for_each(|head| one(head, 0));
            if let Some(angles) = angles {
                ops::rotate(q, d, angles);
            }
            let (page, slot) = (host.page(*row, PAGE)?, row.pos as usize % PAGE);
            for kv in 0..heads.kv_heads as usize {
                caches[cache].get(page, 0, kv, slot, key);
                one(key, 1);
                if let Some(angles) = angles {
                    ops::rotate(key, d, angles);
                }
                caches[cache].set(page, 0, kv, slot, key);
            }
        }
        Ok(())
    }

    fn attention(
        &self,
        q: &[f32],
        spec: &AttentionSpec,
        rows: &[Row],
        work: &Work,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        out.resize(q.len(), 0.0);
        let shared = Shared(out.as_mut_ptr());
        let scale = |pos| spec.scale_at(pos) as f32;
        let AttentionSpec { heads, mask, .. } = *spec;
        let attention = Attention {
            q,
            cache: &self.caches[spec.cache],
            heads,
            mask,
            pages: &self.host.pages,
        };
        let kv_heads = heads.kv_heads as usize;
        let runs = &work.runs;
        self.fork(runs.len() * kv_heads, 1, &|range, scratch| {
            for unit in range {
                let run = &runs[unit / kv_heads];
                // SAFETY: each head of each row is in one unit.
                unsafe {
                    let (rows, out) = (&rows[run.clone()], shared.get());
                    attention.run(
                        run.start,
                        rows,
                        unit % kv_heads,
                        &scale,
                        out,
                        &mut scratch.attention,
                    );
                }
            }
        })
    }

    /// `out = W a + b`
    fn linear(
        &self,
        a: &[f32],
        linear: &Linear,
        rows: usize,
        work: &mut Work,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let matrix = self.matrix(linear.weight)?;
        let (input, cols) = (&mut work.input, matrix.cols);
        self.set_input(input, rows, cols, matrix.needs(), &|t, row| {
            row.clear();
            row.extend_from_slice(&a[t * cols..][..cols]);
        })?;
        self.multiply(input, &[Product::new(matrix, 0, rows, out)])?;
        self.add_bias(linear, out)
    }

    /// `x += W a + b`
    fn residual(
        &self,
        a: &[f32],
        linear: &Linear,
        rows: usize,
        work: &mut Work,
        x: &mut [f32],
    ) -> Result<()> {
        let mut product = std::mem::take(&mut work.product);
        self.linear(a, linear, rows, work, &mut product)?;
        ops::add(x, &product);
        work.product = product;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the operation has as many parts")]
    fn gate_up_silu(
        &self,
        input: PlanInput,
        x: &[f32],
        gate: &Linear,
        up: &Linear,
        rows: usize,
        work: &mut Work,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Work {
            input: normed,
            product,
            ..
        } = work;
        let (gates, ups) = (self.matrix(gate.weight)?, self.matrix(up.weight)?);
        self.read(
            normed,
            input,
            x,
            gates.needs().and(ups.needs()),
            &|t| t,
            rows,
        )?;
        self.multiply(
            normed,
            &[
                Product::new(gates, 0, rows, out),
                Product::new(ups, 0, rows, product),
            ],
        )?;
        self.add_bias(gate, out)?;
        self.add_bias(up, product)?;
        self.silu_mul(out, product)
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) -> Result<()> {
        const GRAIN: usize = 4096;
        let shared = Shared(gate.as_mut_ptr());
        let len = gate.len();
        self.fork(len.div_ceil(GRAIN), 1, &|range, _| {
            for part in range {
                let (from, to) = (part * GRAIN, ((part + 1) * GRAIN).min(len));
                // SAFETY: each part is in one range.
                let gate =
                    unsafe { std::slice::from_raw_parts_mut(shared.get().add(from), to - from) };
                ops::silu_mul(gate, &up[from..to]);
            }
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the operation has as many parts")]
    fn moe_gate_up_silu(
        &self,
        input: PlanInput,
        x: &[f32],
        routes: &[f32],
        [gate, up]: [TensorId; 2],
        experts: Experts,
        work: &mut Work,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let used = experts.used as usize;
        let (gate, up) = (self.matrix(gate)?, self.matrix(up)?);
        let inner = gate.rows;
        out.resize(routes.len() / 2 * inner, 0.0);
        let Work {
            input: normed,
            product: ups,
            gates,
            expert_rows: own,
            ..
        } = work;
        for expert in 0..experts.count {
            rows_of_expert(routes, expert, own);
            if own.is_empty() {
                continue;
            }
            let count = own.len();
            self.read(
                normed,
                input,
                x,
                gate.needs().and(up.needs()),
                &|i| own[i] / used,
                count,
            )?;
            let at = expert as usize;
            self.multiply(
                normed,
                &[
                    Product::new(gate, at, count, gates),
                    Product::new(up, at, count, ups),
                ],
            )?;
            for (i, route) in own.iter().enumerate() {
                let (gate, up) = (
                    &mut gates[i * inner..][..inner],
                    &mut ups[i * inner..][..inner],
                );
                if experts.gating == Gating::Sigmoid {
                    let weight = routes[2 * route + 1];
                    gate.iter_mut()
                        .chain(up.iter_mut())
                        .for_each(|y| *y *= weight);
                }
                ops::silu_mul(gate, up);
                out[route * inner..][..inner].copy_from_slice(gate);
            }
        }
        Ok(())
    }

    fn moe_down_residual(
        &self,
        inner: &[f32],
        routes: &[f32],
        down: TensorId,
        experts: Experts,
        work: &mut Work,
        x: &mut [f32],
    ) -> Result<()> {
        let (used, hidden) = (experts.used as usize, self.host.plan.hidden_size as usize);
        let down = self.matrix(down)?;
        let cols = down.cols;
        let Work {
            input,
            product,
            expert_rows: own,
            ..
        } = work;
        for expert in 0..experts.count {
            rows_of_expert(routes, expert, own);
            if own.is_empty() {
                continue;
            }
            self.set_input(input, own.len(), cols, down.needs(), &|i, row| {
                row.clear();
                row.extend_from_slice(&inner[own[i] * cols..][..cols]);
            })?;
            self.multiply(
                input,
                &[Product::new(down, expert as usize, own.len(), product)],
            )?;
            for (route, y) in own.iter().zip(product.chunks_exact(hidden)) {
                let weight = if experts.gating == Gating::Softmax {
                    routes[2 * route + 1]
                } else {
                    1.0
                };
                ops::add_scaled(&mut x[route / used * hidden..][..hidden], y, weight);
            }
        }
        Ok(())
    }
}

/// The rows that use an expert, as indices into the routes.
fn rows_of_expert(routes: &[f32], expert: u32, own: &mut Vec<usize>) {
    own.clear();
    own.extend(
        plan::routes(routes)
            .enumerate()
            .filter(|(_, (own, _))| *own == expert)
            .map(|(i, _)| i),
    );
}
