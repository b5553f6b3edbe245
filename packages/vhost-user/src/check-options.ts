import { checkString, integer, wrongValue } from '@upcall/foundation/check'

export const MAX_CID = 0xffff_fffe

export function checkHostCids(cids: unknown, guestCid: number): void {
  if (cids === 'any') return
  if (!Array.isArray(cids) || cids.length === 0) wrongValue('hostCids', "'any' or an array of at least one CID", cids)
  for (const [i, cid] of (cids as unknown[]).entries()) {
    integer(`hostCids[${i}]`, cid, { min: 0, max: MAX_CID })
    if (cid === guestCid) wrongValue(`hostCids[${i}]`, "another CID than the guest's", cid)
  }
}

export function checkGroups(groups: unknown): void {
  if (!Array.isArray(groups)) wrongValue('groups', 'an array of names', groups)
  for (const [i, group] of (groups as unknown[]).entries()) checkString(`groups[${i}]`, group, 'a name')
}
