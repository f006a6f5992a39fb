import './llamero-app.js';
