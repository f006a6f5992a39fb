//! The operations of a plan, over the rows of a step.

use super::*;

impl CpuExecutor {
    pub(super) fn embed(&mut self, table: TensorId, rows: &[Row]) -> Result<()> {
        let spec = self.plan.tensor(table);
        let hidden = spec.cols as usize;
        self.x.resize(rows.len() * hidden, 0.0);
        for (row, x) in rows.iter().zip(self.x.chunks_exact_mut(hidden)) {
            match &self.weights[table.0] {
                Weight::Matrix(matrix) => matrix.row(row.token as usize, x)?,
                Weight::Table(bytes) => {
                    let len = spec.row_bytes() as usize;
                    let stored = bytes.get(row.token as usize * len..).and_then(|b| b.get(..len));
                    spec.dtype.dequantize(stored.ok_or_else(|| Error::internal("a row beyond the table"))?, x)?;
                }
                Weight::Vector(vector) => x.copy_from_slice(vector),
            }
        }
        Ok(())
    }

    pub(super) fn qkv_rope(
        &mut self,
        norm: &Norm,
        linears: [&Linear; 3],
        heads: Heads,
        rope: Option<usize>,
        cache: usize,
        rows: &[Row],
    ) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let mut outs = [&mut self.q, &mut self.k, &mut self.v].map(std::mem::take);
        let matrices =
            [self.matrix(linears[0].weight)?, self.matrix(linears[1].weight)?, self.matrix(linears[2].weight)?];
        let needs = matrices.iter().fold(Needs::default(), |needs, m| needs.and(m.needs()));
        self.norm_input(&mut input, norm, needs, &|t| t, rows.len())?;
        let [q, k, v] = &mut outs;
        self.multiply(
            &input,
            &[
                Product::new(matrices[0], 0, rows.len(), q),
                Product::new(matrices[1], 0, rows.len(), k),
                Product::new(matrices[2], 0, rows.len(), v),
            ],
        )?;
        for (linear, out) in linears.into_iter().zip(&mut outs) {
            self.add_bias(linear, out)?;
        }
        let [q, k, v] = outs;
        self.input = input;
        (self.q, self.k, self.v) = (q, k, v);

        let d = heads.head_dim as usize;
        let kv_heads = heads.kv_heads as usize;
        if let Some(rope) = rope {
            let pairs = self.plan.ropes[rope].inv_freq.len();
            for t in 0..rows.len() {
                let angles = &self.angles[rope][t * pairs..][..pairs];
                ops::rotate(&mut self.q[t * heads.heads as usize * d..][..heads.heads as usize * d], d, angles);
                ops::rotate(&mut self.k[t * kv_heads * d..][..kv_heads * d], d, angles);
            }
        }
        for (t, row) in rows.iter().enumerate() {
            let page = self.pages[row.seq as usize][row.pos as usize / PAGE];
            for kv in 0..kv_heads {
                let at = (t * kv_heads + kv) * d;
                let slot = row.pos as usize % PAGE;
                self.caches[cache].set(page, 0, kv, slot, &self.k[at..at + d]);
                self.caches[cache].set(page, 1, kv, slot, &self.v[at..at + d]);
            }
        }
        Ok(())
    }

    pub(super) fn qk_norm(&mut self, heads: Heads, cache: usize, eps: f32, rows: &[Row]) {
        let d = heads.head_dim as usize;
        self.q.chunks_exact_mut(d).for_each(|head| ops::head_norm(head, eps));
        let mut key = std::mem::take(&mut self.product);
        key.resize(d, 0.0);
        for row in rows {
            let (page, slot) = (self.pages[row.seq as usize][row.pos as usize / PAGE], row.pos as usize % PAGE);
            for kv in 0..heads.kv_heads as usize {
                self.caches[cache].get(page, 0, kv, slot, &mut key);
                ops::head_norm(&mut key, eps);
                self.caches[cache].set(page, 0, kv, slot, &key);
            }
        }
        self.product = key;
    }

    pub(super) fn attention(
        &mut self,
        heads: Heads,
        cache: usize,
        scale: f32,
        mask: Mask,
        temperature: Option<Temperature>,
        rows: &[Row],
    ) -> Result<()> {
        let mut out = std::mem::take(&mut self.attention);
        out.resize(self.q.len(), 0.0);
        let shared = Shared(out.as_mut_ptr());
        let scale = |pos| temperature.map_or(scale, |t| (f64::from(scale) * t.at(pos)) as f32);
        let attention = Attention { q: &self.q, cache: &self.caches[cache], heads, mask, pages: &self.pages };
        let kv_heads = heads.kv_heads as usize;
        let runs = &self.runs;
        self.fork(runs.len() * kv_heads, 1, &|range, scratch| {
            for unit in range {
                let run = &runs[unit / kv_heads];
                // SAFETY: each head of each row is in one unit.
                unsafe {
                    let (rows, out) = (&rows[run.clone()], shared.get());
                    attention.run(run.start, rows, unit % kv_heads, &scale, out, &mut scratch.attention);
                }
            }
        })?;
        self.attention = out;
        Ok(())
    }

    /// `x += W a + b`
    pub(super) fn residual(&mut self, linear: &Linear, rows: usize, of_attention: bool) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let mut product = std::mem::take(&mut self.product);
        let matrix = self.matrix(linear.weight)?;
        let a = if of_attention { &self.attention } else { &self.ffn };
        let cols = matrix.cols;
        self.set_input(&mut input, rows, cols, matrix.needs(), &|t, row| {
            row.clear();
            row.extend_from_slice(&a[t * cols..][..cols]);
        })?;
        self.multiply(&input, &[Product::new(matrix, 0, rows, &mut product)])?;
        self.add_bias(linear, &mut product)?;
        ops::add(&mut self.x, &product);
        (self.input, self.product) = (input, product);
        Ok(())
    }

    pub(super) fn gate_up_silu(&mut self, norm: &Norm, gate: &Linear, up: &Linear, rows: usize) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let (mut ffn, mut product) = (std::mem::take(&mut self.ffn), std::mem::take(&mut self.product));
        let (gates, ups) = (self.matrix(gate.weight)?, self.matrix(up.weight)?);
        self.norm_input(&mut input, norm, gates.needs().and(ups.needs()), &|t| t, rows)?;
        let products = [Product::new(gates, 0, rows, &mut ffn), Product::new(ups, 0, rows, &mut product)];
        self.multiply(&input, &products)?;
        self.add_bias(gate, &mut ffn)?;
        self.add_bias(up, &mut product)?;
        self.silu_mul(&mut ffn, &product)?;
        (self.input, self.ffn, self.product) = (input, ffn, product);
        Ok(())
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) -> Result<()> {
        const GRAIN: usize = 4096;
        let shared = Shared(gate.as_mut_ptr());
        let len = gate.len();
        self.fork(len.div_ceil(GRAIN), 1, &|range, _| {
            for part in range {
                let (from, to) = (part * GRAIN, ((part + 1) * GRAIN).min(len));
                // SAFETY: each part is in one range.
                let gate = unsafe { std::slice::from_raw_parts_mut(shared.get().add(from), to - from) };
                ops::silu_mul(gate, &up[from..to]);
            }
        })
    }

    pub(super) fn moe_route(&mut self, norm: &Norm, router: TensorId, experts: Experts, rows: usize) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let mut product = std::mem::take(&mut self.product);
        let router = self.matrix(router)?;
        self.norm_input(&mut input, norm, router.needs(), &|t| t, rows)?;
        self.multiply(&input, &[Product::new(router, 0, rows, &mut product)])?;
        route(&product, experts, &mut self.routes);
        (self.input, self.product) = (input, product);
        Ok(())
    }

    /// For each expert that is used, its rows as indices into the routes.
    fn for_each_expert(
        &mut self,
        experts: Experts,
        mut each: impl FnMut(&mut CpuExecutor, usize, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let mut own = std::mem::take(&mut self.expert_rows);
        for expert in 0..experts.count {
            own.clear();
            own.extend(self.routes.iter().enumerate().filter(|(_, (e, _))| *e == expert).map(|(i, _)| i));
            if !own.is_empty() {
                each(self, expert as usize, &own)?;
            }
        }
        self.expert_rows = own;
        Ok(())
    }

    pub(super) fn moe_gate_up_silu(
        &mut self,
        norm: &Norm,
        gate: TensorId,
        up: TensorId,
        experts: Experts,
        rows: usize,
    ) -> Result<()> {
        let used = experts.used as usize;
        let inner = self.matrix(gate)?.rows;
        self.expert_ffn.resize(rows * used * inner, 0.0);
        let (mut gates, mut ups) = (std::mem::take(&mut self.expert_gates), std::mem::take(&mut self.product));
        self.for_each_expert(experts, |this, expert, own| {
            let mut input = std::mem::take(&mut this.input);
            let (gate, up) = (this.matrix(gate)?, this.matrix(up)?);
            this.norm_input(&mut input, norm, gate.needs().and(up.needs()), &|i| own[i] / used, own.len())?;
            let products =
                [Product::new(gate, expert, own.len(), &mut gates), Product::new(up, expert, own.len(), &mut ups)];
            this.multiply(&input, &products)?;
            for (i, route) in own.iter().enumerate() {
                let (gate, up) = (&mut gates[i * inner..][..inner], &mut ups[i * inner..][..inner]);
                if experts.gating == Gating::Sigmoid {
                    let weight = this.routes[*route].1;
                    gate.iter_mut().chain(up.iter_mut()).for_each(|y| *y *= weight);
                }
                ops::silu_mul(gate, up);
                this.expert_ffn[route * inner..][..inner].copy_from_slice(gate);
            }
            this.input = input;
            Ok(())
        })?;
        (self.expert_gates, self.product) = (gates, ups);
        Ok(())
    }

    pub(super) fn moe_down_residual(&mut self, down: TensorId, experts: Experts) -> Result<()> {
        let (used, hidden) = (experts.used as usize, self.plan.hidden_size as usize);
        let mut product = std::mem::take(&mut self.product);
        self.for_each_expert(experts, |this, expert, own| {
            let mut input = std::mem::take(&mut this.input);
            let down = this.matrix(down)?;
            let (ffn, cols) = (&this.expert_ffn, down.cols);
            this.set_input(&mut input, own.len(), cols, down.needs(), &|i, row| {
                row.clear();
                row.extend_from_slice(&ffn[own[i] * cols..][..cols]);
            })?;
            this.multiply(&input, &[Product::new(down, expert, own.len(), &mut product)])?;
            for (route, y) in own.iter().zip(product.chunks_exact(hidden)) {
                let weight = if experts.gating == Gating::Softmax { this.routes[*route].1 } else { 1.0 };
                ops::add_scaled(&mut this.x[route / used * hidden..][..hidden], y, weight);
            }
            this.input = input;
            Ok(())
        })?;
        self.product = product;
        Ok(())
    }

    pub(super) fn lm_head(&mut self, norm: &Norm, weight: TensorId, heads: &[u32]) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let mut logits = std::mem::take(&mut self.logits);
        let matrix = self.matrix(weight)?;
        self.norm_input(&mut input, norm, matrix.needs(), &|i| heads[i] as usize, heads.len())?;
        self.multiply(&input, &[Product::new(matrix, 0, heads.len(), &mut logits)])?;
        (self.input, self.logits) = (input, logits);
        Ok(())
    }

    pub(super) fn sample(&mut self, rows: &[Row], heads: &[u32]) -> Vec<u32> {
        let vocab = self.plan.vocab_size as usize;
        self.next.clear();
        for (logits, head) in self.logits.chunks_exact(vocab).zip(heads) {
            let row = rows[*head as usize];
            let token = self.sampler.draw(logits, &mut self.sampling[row.seq as usize], row.pos);
            self.next.push(Row { token, seq: row.seq, pos: row.pos + 1 });
        }
        self.next.iter().map(|row| row.token).collect()
    }
}
