'use strict';
const $ = id => document.getElementById(id), RATE = 16000;
const SAMPLE = 'Hello. This is how I sound.';

// Requests

async function call(path, options = {}) {
  const key = sessionStorage.getItem('key');
  options.headers = {...(key ? {Authorization: `Bearer ${key}`} : {}), ...options.headers};
  let answer;
  try { answer = await fetch(path, options); } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('the server cannot be reached');
  }
  if (answer.ok) return answer;
  if (answer.status === 401) { $('lock').hidden = false; $('key').focus(); }
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error?.message || `the server answered ${answer.status}`);
}
const post = (path, body, signal) => call(path, {
  method: 'POST', body: JSON.stringify(body), headers: {'Content-Type': 'application/json'}, signal});

function show(error) {
  if (error.name === 'AbortError') return;
  $('error').hidden = false;
  $('error').firstChild.textContent = error.message;
}
$('error').lastChild.onclick = () => { $('error').hidden = true; };
$('lock').onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem('key', $('key').value);
  $('lock').hidden = $('error').hidden = true;
  begin();
};

// Sound: samples are played while they come, through an audio element, which the system's media keys know.

const sound = {context: null, samples: new Float32Array(0), count: 0, sources: [], from: 0, at: 0, next: 0, whole: true,
  get position() {
    if (!this.context || !this.sources.length) return this.from;
    return Math.min(this.from + Math.max(0, this.context.currentTime - this.at), this.count / RATE);
  },
  get playing() { return this.sources.length > 0 && this.context.state === 'running'; },
  open() {
    if (!this.context) {
      this.context = new AudioContext({sampleRate: RATE});
      this.out = this.context.createMediaStreamDestination();
      $('player').srcObject = this.out.stream;
    }
    this.context.resume();
    $('player').play().catch(() => {});
  },
  clear() { this.halt(); this.samples = new Float32Array(RATE * 30); this.count = this.from = 0; this.whole = false; },
  halt() { for (const source of this.sources) { source.onended = null; source.stop(); } this.sources = []; },
  push(samples) {
    if (this.count + samples.length > this.samples.length) {
      const larger = new Float32Array(2 * (this.count + samples.length));
      larger.set(this.samples.subarray(0, this.count));
      this.samples = larger;
    }
    this.samples.set(samples, this.count);
    this.count += samples.length;
    if (this.wanted) this.schedule(samples);
  },
  schedule(samples) {
    const now = this.context.currentTime;
    if (!this.sources.length || this.next < now) {  // the first, or it ran dry
      this.from = (this.count - samples.length) / RATE;
      this.at = this.next = now + 0.03;
    }
    const buffer = this.context.createBuffer(1, samples.length, RATE), source = this.context.createBufferSource();
    buffer.copyToChannel(samples, 0);
    source.buffer = buffer;
    source.connect(this.out);
    source.start(this.next);
    this.next += buffer.duration;
    source.onended = () => {
      if (this.whole && source === this.sources.at(-1)) { this.halt(); this.from = 0; this.wanted = false; draw(); }
    };
    this.sources.push(source);
  },
  play(from = this.position) {
    this.open();
    this.halt();
    this.wanted = true;
    const first = Math.min(Math.round(from * RATE), this.count);
    this.from = first / RATE;
    if (first < this.count) {
      const rest = this.samples.slice(first, this.count);
      this.at = this.next = this.context.currentTime + 0.02;
      this.schedule(rest);
      this.from = first / RATE;
    }
  },
  pause() { this.from = this.position; this.halt(); this.wanted = false; },
};

function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, 'RIFF'); view.setUint32(4, 36 + 2 * samples.length, true); word(8, 'WAVEfmt ');
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true); view.setUint32(28, 2 * RATE, true); view.setUint16(32, 2, true);
  view.setUint16(34, 16, true); word(36, 'data'); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((s, i) => view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(s * 32768))), true));
  return new Blob([view], {type: 'audio/wav'});
}

function wavReader() {
  // A WAV as it comes: 44 bytes, then 16-bit samples. A piece may end in the middle of one.
  let rest = new Uint8Array(0), head = 44;
  return piece => {
    const bytes = new Uint8Array(rest.length + piece.length);
    bytes.set(rest); bytes.set(piece, rest.length);
    const start = Math.min(head, bytes.length), stop = bytes.length - (bytes.length - start) % 2;
    head -= start;
    rest = bytes.slice(stop);
    const view = new DataView(bytes.buffer, start, stop - start);
    return Float32Array.from({length: view.byteLength / 2}, (_, i) => view.getInt16(2 * i, true) / 32768);
  };
}

async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    text += value;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events.map(line => JSON.parse(line.slice(6)))) {
      if (event.type === 'error') throw new Error(event.error.message);
      yield event;
    }
  }
}

const clock = seconds => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;

function draw() {
  const canvas = $('wave'), scale = devicePixelRatio || 1, {clientWidth: w, clientHeight: h} = canvas;
  if (canvas.width !== w * scale) { canvas.width = w * scale; canvas.height = h * scale; }
  const brush = canvas.getContext('2d'), style = getComputedStyle(document.body), total = Math.max(sound.count, RATE);
  brush.setTransform(scale, 0, 0, scale, 0, 0);
  brush.clearRect(0, 0, w, h);
  const bars = Math.floor(w / 4), played = sound.position * RATE;
  for (let i = 0; i < bars; i++) {
    const from = Math.floor(i * total / bars), to = Math.min(Math.floor((i + 1) * total / bars), sound.count);
    let peak = 0;
    for (let j = from; j < to; j += 8) peak = Math.max(peak, Math.abs(sound.samples[j]));
    brush.fillStyle = style.getPropertyValue(from < played ? '--main' : '--wave');
    const height = Math.max(2, Math.min(1, 3 * peak) * h);
    brush.fillRect(4 * i, (h - height) / 2, 2.5, height);
  }
  $('time').textContent = `${clock(sound.position)} / ${clock(sound.count / RATE)}${sound.whole ? '' : '…'}`;
  canvas.setAttribute('aria-valuemax', (sound.count / RATE).toFixed(1));
  canvas.setAttribute('aria-valuenow', sound.position.toFixed(1));
  const now = sound.position;
  for (const word of $('said').children) word.classList.toggle('now', word.start <= now && now < word.end);
  $('play').textContent = sound.wanted ? '❚❚' : '▶';
  $('play').setAttribute('aria-label', sound.wanted ? 'Pause' : 'Play');
  if (sound.wanted) requestAnimationFrame(draw);
}
$('play').onclick = () => { sound.wanted ? sound.pause() : sound.play(); draw(); };
const seek = seconds => { sound.play(Math.max(0, seconds)); draw(); };
$('wave').onclick = event => seek(event.offsetX / $('wave').clientWidth * Math.max(sound.count, RATE) / RATE);
$('wave').onkeydown = event => {
  const step = {ArrowLeft: -2, ArrowRight: 2}[event.key];
  if (step) { event.preventDefault(); seek(sound.position + step); }
};
addEventListener('resize', () => $('sound').hidden || draw());

function ready(facts, note = '') {
  sound.whole = true;
  const link = $('download');
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(wav(sound.samples.subarray(0, sound.count)));
  link.hidden = !sound.count;
  $('facts').textContent = facts;
  $('note').textContent = note;
  draw();
}

function spell(words = []) {
  // Each word can be seen while it is said, and heard again.
  $('said').replaceChildren(...words.flatMap(({word, start, end}) =>
    [element('span', {textContent: word, start, end, onclick: () => seek(start)}), ' ']));
  $('said').hidden = !words.length;
}

// Speaking

let stopping = null, timestamps = false;

function wanted(text) {
  const number = id => $(id).value === '' ? undefined : Number($(id).value);
  return {input: text, voice: document.querySelector('[name=voice]:checked')?.value, response_format: 'wav',
    speed: Number($('speed').value), temperature: number('temperature'), seed: number('seed'),
    stream_format: 'sse', timestamps};
}

async function speak(body) {
  stopping?.abort();
  stopping = new AbortController();
  const own = stopping, began = performance.now();
  $('error').hidden = true;
  $('results').hidden = $('download').hidden = true;
  $('stop').hidden = false;
  sound.open();
  sound.clear();
  spell();
  sound.wanted = true;
  $('facts').textContent = $('note').textContent = '';
  try {
    if (Number($('best').value) > 1 && !body.sample) await search(body, own.signal);
    else {
      delete body.sample;
      const read = wavReader();
      let first = 0;
      for await (const event of eventsOf(await post('/v1/audio/speech', body, own.signal))) {
        if (event.type === 'speech.audio.delta') {
          first = first || Math.round(performance.now() - began);
          const samples = read(bytesOf(event.audio));
          if (samples.length) sound.push(samples);
          if ($('sound').hidden) { $('sound').hidden = false; draw(); }
        } else {
          spell(event.words);
          ready(`first sound after ${first} ms, seed ${event.seed}`, event.note);
        }
      }
    }
  } catch (error) {
    if (stopping === own) { sound.whole = true; if (sound.count) ready('stopped'); }
    show(error);
  } finally {
    if (stopping === own) { $('stop').hidden = $('searching').hidden = true; stopping = null; }
  }
}

async function search(body, signal) {
  $('sound').hidden = true;
  $('searching').hidden = false;
  $('progress').removeAttribute('value');
  $('stage').textContent = '';
  const answer = await post('/v1/audio/speech', {...body, best_of: Number($('best').value), candidates: true}, signal);
  let data = null;
  for await (const event of eventsOf(answer)) {
    if (event.type === 'speech.audio.progress') {
      $('progress').value = event.spoken / Math.max(event.expected, 0.01);
      $('stage').textContent = `${event.spoken.toFixed(1)} of about ${event.expected.toFixed(1)} s`;
    }
    if (event.type === 'speech.audio.delta') data = bytesOf(event.audio);
    if (event.type === 'speech.audio.done') {
      $('sound').hidden = false;
      hear(data, event.words, `the best of ${$('best').value}, seed ${event.seed}`, event.note);
      compare(event.candidates);
    }
  }
}

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

function hear(data, words, facts, note) {
  sound.clear();
  sound.open();
  sound.wanted = true;
  spell(words);
  sound.push(wavReader()(data));
  ready(facts, note);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function compare(candidates) {
  const names = [...new Set(candidates.flatMap(one => Object.keys(one.scores)))];
  const best = one => Object.values(one.scores).reduce((sum, score) => sum + score, 0);
  candidates.sort((a, b) => a.chunk - b.chunk || b.chosen - a.chosen || best(b) - best(a));
  $('candidates').replaceChildren(...candidates.map(one => {
    const play = element('button', {type: 'button', className: 'round', textContent: '▶',
      onclick: () => hear(bytesOf(one.audio), one.words, `candidate ${one.number + 1}`)});
    play.setAttribute('aria-label', `Play candidate ${one.number + 1}`);
    const scores = element('div', {className: 'scores'}, ...names.filter(name => name in one.scores).map(name => {
      const bar = element('i');
      bar.style.width = `${100 * Math.max(0, Math.min(1, one.scores[name]))}%`;
      return element('div', {className: 'score'}, element('span', {textContent: name}),
        element('div', {className: 'track'}, bar), element('span', {textContent: one.scores[name].toFixed(3)}));
    }));
    const title = candidates.some(other => other.chunk) ? `${one.chunk + 1}.${one.number + 1}` : `no. ${one.number + 1}`;
    return element('div', {className: `candidate${one.chosen ? ' chosen' : ''}`, title: one.text}, play,
      element('div', {}, element('b', {textContent: title}),
        element('div', {className: 'dim', textContent: `${one.seconds.toFixed(1)} s`})), scores,
      element('span', {className: one.chosen ? 'tag' : 'dim', textContent: one.chosen ? 'chosen' : one.condemned || ''}));
  }));
  $('results').hidden = false;
}

$('form').onsubmit = event => {
  event.preventDefault();
  if ($('text').value.trim()) speak(wanted($('text').value)); else show(new Error('there is no text to speak'));
};
$('stop').onclick = () => { stopping?.abort(); sound.pause(); };
addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); $('form').requestSubmit(); }
  if (event.key === 'Escape') $('stop').onclick();
});
const count = () => { $('count').textContent = `${$('text').value.length} characters`; };
$('text').oninput = count;
$('speed').oninput = () => { $('speedis').textContent = Number($('speed').value).toFixed(2); };

// Voices

async function listVoices(chosen) {
  const {voices, default: usual} = await (await call('/v1/audio/voices')).json();
  $('voices').replaceChildren(...voices.map(({id, kind}) => {
    const radio = element('input', {type: 'radio', name: 'voice', value: id, checked: id === (chosen || usual)});
    const sample = element('button', {type: 'button', textContent: '▶', title: `Hear ${id}`,
      onclick: () => { radio.checked = true; speak({...wanted(SAMPLE), voice: id, seed: 1, speed: 1, sample: true}); }});
    sample.setAttribute('aria-label', `Hear ${id}`);
    const parts = [element('label', {title: id}, radio, id), sample];
    if (kind === 'uploaded') {
      const remove = element('button', {type: 'button', className: 'remove', textContent: '✕', title: `Remove ${id}`,
        onclick: () => call(`/v1/audio/voices/${encodeURIComponent(id)}`, {method: 'DELETE'})
          .then(() => listVoices()).catch(show)});
      remove.setAttribute('aria-label', `Remove ${id}`);
      parts.push(remove);
    }
    return element('div', {className: 'voice'}, ...parts);
  }));
}

// Cloning

let recording = null, take = null;

function keep(blob) {
  take = blob;
  $('preview').hidden = false;
  if ($('preview').src) URL.revokeObjectURL($('preview').src);
  $('preview').src = URL.createObjectURL(blob);
}
$('file').onchange = () => { if ($('file').files[0]) keep($('file').files[0]); };
$('record').onclick = async () => {
  if (recording) return recording.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({audio: {noiseSuppression: false, autoGainControl: false}});
    const pieces = [];
    recording = new MediaRecorder(stream);
    recording.ondataavailable = event => pieces.push(event.data);
    recording.onstop = async () => {
      stream.getTracks().forEach(track => track.stop());
      $('record').textContent = '● Record';
      $('record').classList.remove('recording');
      recording = null;
      // As WAV, which every server can read.
      const data = await new Blob(pieces).arrayBuffer();
      const heard = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(data).catch(() => null);
      heard ? keep(wav(heard.getChannelData(0))) : show(new Error('nothing was recorded'));
    };
    recording.start();
    $('record').textContent = '■ Stop';
    $('record').classList.add('recording');
  } catch (error) { show(new Error('no microphone can be used here: choose a file')); }
};
$('clone').onsubmit = async event => {
  event.preventDefault();
  if (!take) return show(new Error('record something, or choose a file'));
  const form = new FormData();
  form.append('audio_sample', take, 'recording.wav');
  form.append('name', $('name').value);
  form.append('ref_text', $('words').value);
  form.append('consent', $('consent').checked);
  $('save').disabled = true;
  $('error').hidden = true;
  $('saving').textContent = 'listening to it…';
  try {
    const voice = await (await call('/v1/audio/voices', {method: 'POST', body: form})).json();
    await listVoices(voice.id);
    $('saving').textContent = `It says: “${voice.text}”`;
  } catch (error) { $('saving').textContent = ''; show(error); } finally { $('save').disabled = false; }
};

async function begin() {
  try {
    const [model] = (await (await call('/v1/models')).json()).data;
    timestamps = model.timestamps;
    $('model').textContent = `text to speech with ${model.id}`;
    await listVoices();
  } catch (error) { show(error); }
}
count();
begin();
