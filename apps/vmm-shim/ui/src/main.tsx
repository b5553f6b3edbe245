import { render } from 'preact'
import { App } from './app.js'
import { follow } from './store.js'
import './style/base.css'
import './style/machine.css'
import './style/talk.css'

follow()
render(<App />, document.getElementById('page')!)
