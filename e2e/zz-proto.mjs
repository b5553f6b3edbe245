import { guestImage } from './image.mjs'
import * as life from './vhost-user/life.mjs'
import * as data from './vhost-user/data.mjs'
import { descriptors, MIB, Scene, settled } from './vhost-user/scene.mjs'
const image = await guestImage()
const scene = new Scene(image)
const log = (...a) => console.log(`[${(performance.now()/1000).toFixed(2)}]`, ...a)
try {
  await scene.startServices()
  await scene.startDevice()
  scene.device.on('warning', (e) => log('WARNING', e.message))
  const idle = descriptors()
  log('boot'); await scene.boot(); log('booted', scene.device.state)
  for (const [name, body] of Object.entries({
    traffic: () => scene.traffic(4, 16 * MIB).done(),
    stopAndCont: () => life.stopAndCont(scene, 2),
    hotplug: () => life.hotplug(scene, 2),
    guestReset: () => life.guestReset(scene),
    ownerReset: () => life.ownerReset(scene),
    qemuKilled: () => life.qemuKilled(scene),
    descriptors: () => settled(idle),
  })) {
    log('---', name)
    try { log(name, 'ok', await body(), scene.told.join(' ')) } catch (e) { log(name, 'FAILED', e) }
  }
} finally { await scene.close() }
