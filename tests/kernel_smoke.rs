use llamero::format::{Checkpoint, FileSource};
use llamero::gpu::{Gpu, GpuExecutor, GpuOptions};
use llamero::model::{Config, load_weights, plan};
use llamero::plan::*;
use llamero::reference::ReferenceExecutor;
use std::rc::Rc;

fn logits(ex: &mut dyn Executor, ids: &[u32], step: usize) -> Vec<f32> {
    let l = ex.limits();
    let pages: Vec<u32> = (0..l.num_pages).rev().collect();
    ex.set_pages(0, &pages).unwrap();
    let mut out = vec![];
    for (c, t) in ids.chunks(step).enumerate() {
        let rows: Vec<Row> =
            t.iter().enumerate().map(|(i, t)| Row { token: *t, seq: 0, pos: (c * step + i) as u32 }).collect();
        let heads: Vec<u32> = (0..rows.len() as u32).collect();
        match pollster::block_on(ex.submit(Step::Rows { rows: &rows, heads: &heads, want: Want::Logits }).unwrap())
            .unwrap()
        {
            Output::Logits(v) => out.extend(v),
            _ => panic!(),
        }
    }
    out
}

#[test]
fn smoke() {
    let gpu = pollster::block_on(Gpu::request()).unwrap();
    println!("{:?}", gpu.capabilities());
    for name in ["llama2-gqa", "llama3-gqa", "odd-dims", "head-dim", "attn-mlp-bias", "linear-rope", "llama32-tied"] {
        let dir = format!("{}/../shared/fixtures/models/{name}", env!("CARGO_MANIFEST_DIR"));
        let src = FileSource::open(std::path::Path::new(&format!("{dir}/model.gguf"))).unwrap();
        let ck = pollster::block_on(Checkpoint::open_gguf(vec![Rc::new(src)])).unwrap();
        let config = pollster::block_on(Config::from_gguf(&ck)).unwrap();
        let model = plan(&config, &ck).unwrap();
        let exp: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{dir}/expected.json")).unwrap()).unwrap();
        let ids: Vec<u32> =
            exp["sequences"][2]["tokens"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        let npy = std::fs::read(format!("{dir}/logits_70.npy")).unwrap();
        let want: Vec<f32> = npy[npy.len() - ids.len() * config.vocab_size as usize * 4..]
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let diff = |a: &[f32]| {
            a.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0f32, |m, d| if d.is_nan() { 1e9 } else { m.max(d) })
        };
        let mut r = ReferenceExecutor::new(model.plan.clone(), Limits::for_context(96, 256, 1)).unwrap();
        pollster::block_on(load_weights(&model, &ck, &mut r, |_| Ok(()))).unwrap();
        println!("{name} reference {} {}", diff(&logits(&mut r, &ids, 64)), diff(&logits(&mut r, &ids, 1)));
        for (sub, f16, mb) in
            [(false, false, None), (true, false, None), (true, true, None), (true, false, Some(1 << 15))]
        {
            let o = GpuOptions { subgroups: Some(sub), cache_f16: Some(f16), max_binding: mb, ..Default::default() };
            let mut g = match pollster::block_on(GpuExecutor::new(&gpu, model.plan.clone(), 96, &o)) {
                Ok(g) => g,
                Err(e) => {
                    println!("  {mb:?} {e:?}");
                    continue;
                }
            };
            pollster::block_on(load_weights(&model, &ck, &mut g, |_| Ok(()))).unwrap();
            println!(
                "  gpu sub {sub} f16 {f16} {mb:?}: many {} one {} 33: {}",
                diff(&logits(&mut g, &ids, 64)),
                diff(&logits(&mut g, &ids, 1)),
                diff(&logits(&mut g, &ids, 33))
            );
        }
    }
}
