import { clients } from './clients.mjs'
import { ending } from './ending.mjs'
import { requests } from './http.mjs'
import { sessions } from './http2.mjs'
import { moving } from './moving.mjs'
import { opening } from './opening.mjs'
import { counting, serving } from './serving.mjs'

/** What is compared. */
export const scenes = { opening, ending, ...moving, serving, counting, http: requests, http2: sessions, ...clients }
