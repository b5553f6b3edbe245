// A person without a mouse.
import assert from 'node:assert/strict'

const MOST_STOPS = 300

/** Presses Tab until the element has the focus. It begins where the focus is. */
export async function tabTo(page, locator) {
  for (let stops = 0; stops < MOST_STOPS; stops++) {
    if (await locator.evaluate((element) => element === document.activeElement)) return
    await page.keyboard.press('Tab')
  }
  assert.fail(`Tab does not reach ${locator}`)
}

/** Goes to an input and replaces what is in it. */
export async function type(page, locator, text) {
  await tabTo(page, locator)
  await page.keyboard.press('ControlOrMeta+a')
  await page.keyboard.type(text)
}

/** Goes through the whole page by Tab. Resolves with each stop, and whether its focus can be seen. */
export async function allStops(page) {
  await page.evaluate(() => {
    document.activeElement?.blur()
    window.scrollTo(0, 0)
  })
  const stops = []
  for (let at = 0; at < MOST_STOPS; at++) {
    await page.keyboard.press('Tab')
    const stop = await page.evaluate(() => {
      const element = document.activeElement
      if (element === null || element === document.body) return undefined
      const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(element)
      const box = element.getBoundingClientRect()
      const isSeen = box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth
      return {
        name: element.getAttribute('aria-label') ?? element.labels?.[0]?.textContent ?? element.textContent.slice(0, 40),
        ring: outlineStyle !== 'none' && Number.parseFloat(outlineWidth) >= 2 && outlineColor !== 'rgba(0, 0, 0, 0)',
        isSeen,
      }
    })
    if (stop === undefined) break
    stops.push(stop)
  }
  return stops
}
